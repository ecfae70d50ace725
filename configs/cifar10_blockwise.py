"""CIFAR-10 in 3 x 3 blocks, k = 9, every example in its own random order (Fig. 5).

  python -m gdm_jax.main --config=configs/cifar10_blockwise.py

One model for all 9! orders; generate in any of them with --mode=sample
--config.sampling.order=8,7,6,5,4,3,2,1,0. Cost and recipe: `cifar10_vanilla.py`.
"""

from configs import cifar10_vanilla, default


def get_config():
  config = cifar10_vanilla.get_config()
  config.strategies.main = default.strategy('blocks', (3, 3))
  return config
