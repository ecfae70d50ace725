"""CIFAR-10 in four frequency bands, from low to high: GDM-F.

  python -m gdm_jax.main --config=configs/cifar10_frequency.py

Bands of a blur basis, cut at ranks 30, 100 and 500 of 1,024, on the intervals that the paper finds
best for FFHQ (Table 2). --config.model.space=frequency is the network of Eq. 12, to compare as in
Fig. 10, whose data set the paper does not name. --config.basis.name=cosine is the other basis.
Cost and recipe: `cifar10_vanilla.py`.
"""

from configs import cifar10_vanilla, default, ffhq64_frequency


def get_config():
  config = cifar10_vanilla.get_config()
  config.basis.name = 'blur'
  config.strategies.main = default.strategy(
    'bands', ffhq64_frequency.EDGES, (0, 1, 2, 3), (0.6, 0.8, 0.9)
  )
  config.sampling.cuts = (0.1, 0.2, 0.3)
  return config
