"""Labelled 1-D signals, four pieces in random order, by the group-causal transformer.

  python -m gdm_jax.main --config=configs/signals_causal.py

2 minutes on two cores (880 images/s). DDPM++ cannot work here: the grid has one axis.
"""

from configs import default


def get_config():
  config = default.get_config()
  config.data.update(name='signals', shape=(40, 1))
  config.strategies.main = default.strategy('rows', (4,))
  config.machine.cpu_devices = 2
  config.model.update(name='group_causal', classes=10)
  config.model.group_causal.update(patch=2, width=96, depth=4, heads=2)
  config.train.update(
    batch=128, duration=100_000, learning_rate=1e-3, ramp=10_000, ema_halflife=10_000
  )
  config.checkpoint.every = 50_000
  config.evaluation.seeds = '0-1999'
  config.log.update(every=2_560, samples_every=50_000)
  return config
