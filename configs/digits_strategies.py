"""Digits with labels, and three ways to split them in one model: the run for completion.

  python -m gdm_jax.main --config=configs/digits_strategies.py

Blocks in any order (in- and outpainting), a coarse lattice first (super-resolution), and rows from
the bottom up (extending an image upward); one in ten labels is hidden, so that sampling can be
guided. 16 minutes on two cores busy with other work, 0.73 M parameters.
"""

from ml_collections import ConfigDict

from configs import default, digits


def get_config():
  config = digits.get_config()
  config.strategies = ConfigDict(
    {
      'blocks': default.strategy('blocks', (2, 2)),
      'cascade': default.strategy('cascade', (2,), order=(0, 1)),
      'upward': default.strategy('rows', (4,), order=(3, 2, 1, 0)),
    }
  )
  config.model.classes = 10
  config.train.update(duration=300_000, ema_halflife=20_000, ema_ramp=0.1)
  return config
