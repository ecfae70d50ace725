"""Even pixels, 8 x 8, in six strategies, by the group-causal transformer.

  python -m gdm_jax.main --config=configs/even_pixels_causal.py

Its tokens are single pixels, since the strategies together cut the grid as finely as that. Trained
on the active group alone as the other, although here every group is active at once.
"""

from configs import even_pixels


def get_config():
  config = even_pixels.get_config()
  config.model.name = 'group_causal'
  config.model.group_causal.update(patch=1, width=64, depth=4, heads=2)
  config.train.update(learning_rate=1e-3, duration=200_000, anneal=200_000)
  return config
