"""CelebA-HQ at 256 x 256 in four bands of a blur basis, from low to high (Fig. 3, 6, 7, 8, 9).

  python -m gdm_jax.main --config=configs/celebahq256_frequency.py --config.data.name=folder:FACES

A folder of pictures of any size (CelebA-HQ has 30,000). Bands [0, 29], [30, 99], [100, 499] and the
rest of 65,536 ranks, on the intervals of ffhq64_frequency. The paper does not give its network for
256 x 256; this is score_sde's DDPM++ for that size, with two blocks a level. Mix two pictures of
one's own with --mode=edit --config.edit.operation=mix --config.edit.images=a.jpg,b.jpg.
"""

from configs import ffhq64_frequency


def get_config():
  config = ffhq64_frequency.get_config()
  config.data.update(name='folder:data/celebahq', shape=(256, 256, 3), augment=0.0, flip=True)
  config.machine.memory_gib = 8.0
  config.model.ddpmpp.update(multipliers=(1, 1, 2, 2, 2, 2, 2), blocks=2, dropout=0.0)
  config.train.duration = 50_000_000
  config.sampling.batch = 64
  return config
