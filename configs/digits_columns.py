"""Fig. 11 on digits: k = 1, 2, 4 and 8 columns from right to left, in one model.

  python -m gdm_jax.main --config=configs/digits_columns.py
  python -m experiments.group_count --config=configs/digits_columns.py

About 10 minutes on two cores.
"""

from ml_collections import ConfigDict

from configs import cifar10_columns, digits


def get_config():
  config = digits.get_config()
  config.strategies = ConfigDict({f'k{k}': cifar10_columns.leftward(k) for k in (1, 2, 4, 8)})
  config.train.update(duration=300_000, ema_halflife=20_000, ema_ramp=0.1)
  return config
