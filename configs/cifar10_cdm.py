"""CIFAR-10, grouping of a cascaded diffusion model, k = 2: coarse lattice first (Table 1, CDM).

  python -m gdm_jax.main --config=configs/cifar10_cdm.py

Cost and recipe: `cifar10_vanilla.py`. The paper reports FID10K 14.03, Euler, 128 steps (Table 1).
"""

from configs import cifar10_vanilla, default


def get_config():
  config = cifar10_vanilla.get_config()
  config.strategies.main = default.strategy('cascade', (2,), order=(0, 1))
  return config
