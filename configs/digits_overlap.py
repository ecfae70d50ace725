"""Digits, 2 x 2 blocks in raster order, whose intervals overlap by 0 to 1: five strategies.

  python -m gdm_jax.main --config=configs/digits_overlap.py
  python -m experiments.group_count --config=configs/digits_overlap.py

One model, so that all overlaps have had the same training. Overlap 0 is one block after another, 1
all at once. About 9 minutes on two cores.
"""

from ml_collections import ConfigDict

from configs import default, digits

OVERLAPS = (0.0, 0.1, 0.25, 0.5, 1.0)


def get_config():
  config = digits.get_config()
  config.strategies = ConfigDict(
    {
      f'overlap_{overlap:g}'.replace('.', '_'): default.strategy(
        'blocks', (2, 2), order=(0, 1, 2, 3), overlap=overlap
      )
      for overlap in OVERLAPS
    }
  )
  config.train.update(duration=300_000, ema_halflife=20_000, ema_ramp=0.1)
  return config
