"""Table 1 on Fashion-MNIST: its four strategies, k = 2 each, in one model.

  python -m gdm_jax.main --config=configs/fashion_groupings.py
  python -m experiments.grouping_strategies --config=configs/fashion_groupings.py \\
    --config.sampling.solver=midpoint --config.sampling.steps=16

The network serves the common refinement of the groupings.
"""

from configs import cifar10_strategies, fashion


def get_config():
  config = fashion.get_config()
  config.strategies = cifar10_strategies.get_config().strategies
  return config
