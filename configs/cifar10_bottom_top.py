"""CIFAR-10, lower half first, then the upper, k = 2 (Table 1, Bottom-to-Top).

  python -m gdm_jax.main --config=configs/cifar10_bottom_top.py

Cost and recipe: `cifar10_vanilla.py`. The paper reports FID10K 12.63, Euler, 128 steps (Table 1).
"""

from configs import cifar10_vanilla, default


def get_config():
  config = cifar10_vanilla.get_config()
  config.strategies.main = default.strategy('rows', (2,), order=(1, 0))
  return config
