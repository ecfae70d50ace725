"""Table 1 on digits: its four strategies, k = 2 each, in one model.

  python -m gdm_jax.main --config=configs/digits_groupings.py
  python -m experiments.grouping_strategies --config=configs/digits_groupings.py

The network serves the common refinement of the groupings. About 6 minutes on two cores.
"""

from configs import cifar10_strategies, digits


def get_config():
  config = digits.get_config()
  config.strategies = cifar10_strategies.get_config().strategies
  config.train.update(duration=200_000, ema_halflife=20_000, ema_ramp=0.1)
  return config
