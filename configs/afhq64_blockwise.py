"""AFHQ at 64 x 64 in 3 x 3 blocks, k = 9, every example in its own random order (Fig. 1b).

  python -m gdm_jax.main --config=configs/afhq64_blockwise.py --config.data.name=folder:AFHQ

AFHQ is a folder of pictures of any size. EDM's recipe for it: batch 256, dropout 0.25,
augmentation 0.15, 200 Mimg.
"""

from configs import default, ffhq64_frequency


def get_config():
  config = ffhq64_frequency.get_config()
  config.data.name = 'folder:data/afhq'
  config.basis.name = 'pixel'
  config.strategies.main = default.strategy('blocks', (3, 3))
  config.model.ddpmpp.dropout = 0.25
  config.sampling.cuts = ()
  return config
