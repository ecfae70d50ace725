"""A 2-D Gaussian mixture, first one coordinate, then the other (Fig. 1a).

  python -m gdm_jax.main --config=configs/toy_2d.py

k = d = 2: every coordinate is a group, the order is drawn at random for every example.
"""

from configs import default


def get_config():
  config = default.get_config()
  config.data.update(name='mixture', shape=(2, 1))
  config.strategies.main = default.strategy('elements')
  config.model.name = 'mlp'
  config.model.mlp.update(width=256, depth=4)
  config.train.update(batch=1024, duration=2_000_000, ramp=50_000, ema_halflife=100_000)
  config.checkpoint.every = 1_000_000
  config.log.update(every=40_000, samples_every=1_000_000, grid=64)
  return config
