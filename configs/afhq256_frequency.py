"""AFHQ at 256 x 256 in four bands of a blur basis, from low to high (Fig. 3).

  python -m gdm_jax.main --config=configs/afhq256_frequency.py --config.data.name=folder:AFHQ

As celebahq256_frequency, on a folder of animals.
"""

from configs import celebahq256_frequency


def get_config():
  config = celebahq256_frequency.get_config()
  config.data.name = 'folder:data/afhq'
  return config
