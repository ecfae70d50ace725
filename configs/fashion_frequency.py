"""Fashion-MNIST in four bands of the paper's blur basis, from low to high: GDM-F with labels.

  python -m gdm_jax.main --config=configs/fashion_frequency.py

The 784 ranks are cut at 10, 40 and 160, on the intervals that the paper finds best for FFHQ (Table
2). --config.basis.name=cosine is the other basis. Pictures of your own:

  python -m gdm_jax.main --config=configs/fashion_frequency.py --mode=edit \\
    --config.edit.images=a.png,b.png --config.edit.operation=mix
"""

from configs import default, fashion


def get_config():
  config = fashion.get_config()
  config.basis.name = 'blur'
  config.strategies.main = default.strategy('bands', (10, 40, 160), (0, 1, 2, 3), (0.6, 0.8, 0.9))
  config.sampling.cuts = (0.1, 0.2, 0.3)
  return config
