"""Animals and faces at 256 x 256 in one model, to mix bands of one with the other (Fig. 7b).

  python -m gdm_jax.main --config=configs/afhq_celebahq256_frequency.py \\
    --config.data.name=folder:AFHQ,FACES

As celebahq256_frequency, on both folders, each a class.
"""

from configs import celebahq256_frequency


def get_config():
  config = celebahq256_frequency.get_config()
  config.data.name = 'folder:data/afhq,data/celebahq'
  return config
