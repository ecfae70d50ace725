"""The mixture of `toy_2d.py` in one model of two strategies: by coordinates, and all at once.

  python -m gdm_jax.main --config=configs/toy_2d_strategies.py

The run of `experiments/toy_2d.py` (Fig. 1a). About a minute on two cores, 0.1 M parameters.
"""

from ml_collections import ConfigDict

from configs import default, toy_2d


def get_config():
  config = toy_2d.get_config()
  config.strategies = ConfigDict(
    {
      'elements': default.strategy('elements'),
      'whole': default.strategy('whole', order=(0,)),
    }
  )
  config.model.mlp.width = 128
  config.train.update(batch=512, duration=6_000_000, anneal=6_000_000, learning_rate=5e-3)
  return config
