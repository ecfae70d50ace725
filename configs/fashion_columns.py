"""Fig. 11 on Fashion-MNIST at 14 x 14: k = 1 to 14 columns from right to left, in one model.

  python -m gdm_jax.main --config=configs/fashion_columns.py
  python -m experiments.group_count --config=configs/fashion_columns.py

Images are averaged over 2 x 2 pixels, since the study takes very many samples.
"""

from ml_collections import ConfigDict

from configs import cifar10_columns, fashion

COUNTS = (1, 2, 4, 7, 14)


def get_config():
  config = fashion.get_config()
  config.data.shape = (14, 14, 1)
  config.model.ddpmpp.multipliers = (2, 2)  # fashion's without its first, at 28 x 28
  config.strategies = ConfigDict({f'k{k}': cifar10_columns.leftward(k) for k in COUNTS})
  config.train.duration = 400_000
  return config
