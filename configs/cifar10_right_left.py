"""CIFAR-10, right half first, then the left, k = 2 (Table 1, Right-to-Left).

  python -m gdm_jax.main --config=configs/cifar10_right_left.py

Cost and recipe: `cifar10_vanilla.py`. The paper reports FID10K 13.14, Euler, 128 steps (Table 1).
"""

from configs import cifar10_vanilla, default


def get_config():
  config = cifar10_vanilla.get_config()
  config.strategies.main = default.strategy('columns', (2,), order=(1, 0))
  return config
