"""Animals and faces at 256 x 256 in one model, to mix bands of one with the other (Fig. 7b).

  python -m gdm_jax.main --config=configs/afhq_celebahq256_frequency.py \\
    --config.data.name=folder:AFHQ,FACES

As celebahq256_frequency, on both folders mixed; the network is not told which is which
(--config.model.classes=2 would).
"""

from configs import celebahq256_frequency


def get_config():
  config = celebahq256_frequency.get_config()
  config.data.update(name='folder:data/afhq,data/celebahq', memory_gib=10.0)
  return config
