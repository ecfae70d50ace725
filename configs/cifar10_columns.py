"""CIFAR-10 in k = 1 to 29 columns from right to left, all in one model (Fig. 11).

  python -m gdm_jax.main --config=configs/cifar10_columns.py

Generate with --mode=sample --config.sampling.strategy=k8. Cost and recipe: `cifar10_vanilla.py`.
"""

from ml_collections import ConfigDict

from configs import cifar10_vanilla, default

COUNTS = (1, 2, 3, 5, 8, 13, 21, 29)


def leftward(k: int) -> ConfigDict:
  """k columns, the rightmost generated first."""
  return default.strategy('columns', (k,), order=tuple(reversed(range(k))))


def get_config():
  config = cifar10_vanilla.get_config()
  config.strategies = ConfigDict({f'k{k}': leftward(k) for k in COUNTS})
  return config
