"""Digits pixel by pixel by the group-causal transformer: an autoregressive transformer, k = d = 64.

  python -m gdm_jax.main --config=configs/digits_causal_autoregressive.py
  python -m gdm_jax.main --config=configs/digits_causal_autoregressive.py --mode=likelihood

As `digits_autoregressive`, but a pass trains all 64 conditionals, generation is token by token with
a cache, and the likelihood takes one pass.
"""

from configs import digits_autoregressive


def get_config():
  config = digits_autoregressive.get_config()
  config.model.name = 'group_causal'
  config.model.group_causal.update(patch=1, width=96, depth=4, heads=2)
  config.train.update(duration=100_000, learning_rate=1e-3)
  return config
