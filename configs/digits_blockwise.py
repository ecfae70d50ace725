"""Fig. 5 on digits: 3 x 3 blocks of 2 or 3 pixels a side, k = 9, in random orders.

  python -m gdm_jax.main --config=configs/digits_blockwise.py
  python -m experiments.order_sweep --config=configs/digits_blockwise.py

About 10 minutes on two cores.
"""

from configs import default, digits


def get_config():
  config = digits.get_config()
  config.strategies.main = default.strategy('blocks', (3, 3))
  config.train.update(duration=300_000, ema_halflife=20_000, ema_ramp=0.1)
  return config
