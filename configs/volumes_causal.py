"""Labelled 8 x 8 x 8 volumes, octants in random order, by the group-causal transformer.

  python -m gdm_jax.main --config=configs/volumes_causal.py

8 minutes on two cores (220 images/s). One token is 2 x 2 x 2 voxels; a group is 4 x 4 x 4.
"""

from configs import default, signals_causal


def get_config():
  config = signals_causal.get_config()
  config.data.update(name='volumes', shape=(8, 8, 8, 1))
  config.strategies.main = default.strategy('blocks', (2, 2, 2))
  config.model.classes = 3
  return config
