"""Digits pixel by pixel: an autoregressive model, k = d = 64, one step each (Proposition 3.1).

  python -m gdm_jax.main --config=configs/digits_autoregressive.py
  python -m gdm_jax.main --config=configs/digits_autoregressive.py --mode=likelihood

The objective is Eq. 22: the velocity loss at the discrete times t = l/d of Appendix C.1. Pixels are
generated in raster order. --config.strategies.main.order= draws an order for every example, and
with --config.train.times=continuous --config.sampling.steps=128 every pixel has more than one step:
an autoregressive diffusion model (ARDM, Appendix D).
"""

from configs import default, digits


def get_config():
  config = digits.get_config()
  config.strategies.main = default.strategy('elements', order=tuple(range(64)))
  config.train.update(
    times='discrete', weighting='velocity', duration=300_000, ema_halflife=20_000, ema_ramp=0.1
  )
  config.sampling.steps = (64,)
  return config
