"""Even pixels, 8 x 8: half of the pixels of one hue, half of the opposite one, in six strategies.

  python -m gdm_jax.main --config=configs/even_pixels.py

One model of k = 1, rows, columns, blocks, a cascade of lattices, and pixel by pixel, for
`experiments.even_pixels`; trained on the active group alone, which Eq. 8 would give 1/64 of the
loss where it is a pixel. About 10 minutes on two cores, 0.72 M parameters.
"""

from ml_collections import ConfigDict

from configs import default, digits


def get_config():
  config = digits.get_config()
  config.data.update(name='even_pixels', shape=(8, 8, 3))
  config.strategies = ConfigDict(
    {
      'whole': default.strategy('whole', order=(0,)),
      'rows': default.strategy('rows', (4,), order=(0, 1, 2, 3)),
      'columns': default.strategy('columns', (4,), order=(0, 1, 2, 3)),
      'blocks': default.strategy('blocks', (2, 2), order=(0, 1, 2, 3)),
      'cascade': default.strategy('cascade', (3,), order=(0, 1, 2)),
      'pixels': default.strategy('elements', order=tuple(range(64))),
    }
  )
  config.model.ddpmpp.dropout = 0.0
  config.train.update(duration=400_000, anneal=400_000, weighting='active', ema_halflife=20_000)
  config.checkpoint.every = 100_000
  config.sampling.steps = (256,)
  config.evaluation.update(features='pixels', seeds='0-499')
  config.log.update(every=12_800, samples_every=100_000)
  return config
