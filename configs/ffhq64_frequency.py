"""FFHQ at 64 x 64 in four bands of the blur basis, from low to high: GDM-F (Fig. 4, Table 2).

  python -m gdm_jax.main --config=configs/ffhq64_frequency.py --config.data.name=folder:FFHQ

FFHQ is a folder of pictures, 70,000 for the whole of it, of any size; they are cropped and resized.
Bands [0, 29], [30, 99], [100, 499] and the rest of 4,096 ranks. Trained on the intervals that the
paper finds best, (0.6, 0.8, 0.9), which give the highest band most of the time; generated on (0.1,
0.2, 0.3), which give it to the lowest (Table 2: FID10K 17.41). --config.sampling.cuts=0.6,0.8,0.9
generates on those of training.
EDM's recipe for 64 x 64: 61.9 M parameters, batch 256, 200 Mimg.
"""

from configs import default

EDGES = (30, 100, 500)  # Section 4.3


def get_config():
  config = default.get_config()
  config.data.update(name='folder:data/ffhq', shape=(64, 64, 3), augment=0.15)
  config.basis.name = 'blur'
  config.strategies.main = default.strategy('bands', EDGES, (0, 1, 2, 3), (0.6, 0.8, 0.9))
  config.model.ddpmpp.update(multipliers=(1, 2, 2, 2), dropout=0.05)
  config.train.update(batch=256, learning_rate=2e-4)
  config.sampling.cuts = (0.1, 0.2, 0.3)
  config.evaluation.features = 'inception'
  return config
