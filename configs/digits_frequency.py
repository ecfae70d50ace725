"""Digits in four frequency bands, from low to high: GDM-F with the paper's blur basis.

  python -m gdm_jax.main --config=configs/digits_frequency.py

The 64 ranks are cut at 3, 10 and 25. About 6 minutes on two cores.
"""

from configs import default, digits


def get_config():
  config = digits.get_config()
  config.basis.name = 'blur'
  config.strategies.main = default.strategy('bands', (3, 10, 25), order=(0, 1, 2, 3))
  config.train.update(duration=200_000, ema_halflife=20_000, ema_ramp=0.1)
  return config
