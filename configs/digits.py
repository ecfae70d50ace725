"""Handwritten digits, 2 x 2 blocks, random order per example: the first run.

  python -m gdm_jax.main --config=configs/digits.py

2 to 3 minutes on two cores, 0.72 M parameters. The README has the Frechet distance to expect.
"""

from configs import default


def get_config():
  config = default.get_config()
  config.strategies.main = default.strategy('blocks', (2, 2))
  config.machine.cpu_devices = 2
  config.model.ddpmpp.update(channels=32, multipliers=(1, 2), blocks=1, attention=(), dropout=0.1)
  config.train.update(
    batch=128,
    duration=180_000,
    learning_rate=2e-3,
    ramp=10_000,
    ema_halflife=10_000,
  )
  config.checkpoint.every = 50_000
  config.evaluation.seeds = '0-1999'
  config.log.update(every=2_560, samples_every=50_000)
  return config
