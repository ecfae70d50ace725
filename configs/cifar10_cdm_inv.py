"""CIFAR-10, the cascade's groups in reverse, k = 2: fine positions first (Table 1, CDM-inv).

  python -m gdm_jax.main --config=configs/cifar10_cdm_inv.py

Cost and recipe: `cifar10_vanilla.py`. The paper reports FID10K 13.70, Euler, 128 steps (Table 1).
"""

from configs import cifar10_vanilla, default


def get_config():
  config = cifar10_vanilla.get_config()
  config.strategies.main = default.strategy('cascade', (2,), order=(1, 0))
  return config
