"""CIFAR-10 with the four strategies of Table 1 in one model, drawn uniformly for every example.

  python -m gdm_jax.main --config=configs/cifar10_strategies.py

The network serves the common refinement of the groupings; generate with --mode=sample
--config.sampling.strategy=bottom_top. Cost and recipe: `cifar10_vanilla.py`.
"""

from ml_collections import ConfigDict

from configs import (
  cifar10_bottom_top,
  cifar10_cdm,
  cifar10_cdm_inv,
  cifar10_right_left,
  cifar10_vanilla,
)

STRATEGIES = {
  'bottom_top': cifar10_bottom_top,
  'right_left': cifar10_right_left,
  'cdm': cifar10_cdm,
  'cdm_inv': cifar10_cdm_inv,
}


def get_config():
  config = cifar10_vanilla.get_config()
  config.strategies = ConfigDict(
    {name: module.get_config().strategies.main for name, module in STRATEGIES.items()}
  )
  return config
