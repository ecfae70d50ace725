"""Two digits side by side that add up to nine, 8 x 16, in five strategies.

  python -m gdm_jax.main --config=configs/digit_pairs.py

One model of k = 1, halves, rows, and columns in two orders, for `experiments.digit_pairs`: one
digit after the other, or the left halves of both first. 0.72 M parameters.
"""

from ml_collections import ConfigDict

from configs import default, digits


def get_config():
  config = digits.get_config()
  config.data.update(name='digit_pairs', shape=(8, 16, 1))
  config.strategies = ConfigDict(
    {
      'whole': default.strategy('whole', order=(0,)),
      'halves': default.strategy('columns', (2,), order=(0, 1)),
      'one_by_one': default.strategy('columns', (4,), order=(0, 1, 2, 3)),
      'alternating': default.strategy('columns', (4,), order=(0, 2, 1, 3)),
      'rows': default.strategy('rows', (4,), order=(0, 1, 2, 3)),
    }
  )
  config.train.update(duration=150_000, ema_halflife=20_000, ema_ramp=0.1)
  config.evaluation.seeds = '0-499'
  return config
