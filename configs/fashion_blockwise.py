"""Fig. 5 on Fashion-MNIST at 14 x 14: 3 x 3 blocks, k = 9, in random orders.

  python -m gdm_jax.main --config=configs/fashion_blockwise.py
  python -m experiments.order_sweep --config=configs/fashion_blockwise.py \\
    --config.sampling.solver=midpoint --config.sampling.steps=18

Images are averaged over 2 x 2 pixels, since 100 orders take very many samples.
"""

from configs import default, fashion


def get_config():
  config = fashion.get_config()
  config.data.shape = (14, 14, 1)
  config.model.ddpmpp.multipliers = (2, 2)  # fashion's without its first, at 28 x 28
  config.strategies.main = default.strategy('blocks', (3, 3))
  config.train.duration = 400_000
  return config
