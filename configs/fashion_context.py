"""Fashion-MNIST with labels, 2 x 2 blocks in random order, by a context network and a denoiser.

  python -m gdm_jax.main --config=configs/fashion_context.py

37 minutes on two cores (32 images/s, AMD EPYC with AVX2; `fashion` 60 there). One model of it had
FD (classifier) 6.6, the package's `fashion`, of three times as many images, 4.1 (docs/choose.md).
Four blocks are generated in 98 ms an image with 16 steps each, and by `fashion` in 229 ms
(docs/group_causal.md).
"""

from configs import fashion


def get_config():
  config = fashion.get_config()
  config.model.name = 'context_unet'
  config.model.context_unet.update(
    channels=32, multipliers=(1, 2, 2), blocks=1, attention=(), features=32, dropout=0.1
  )
  config.model.context_unet.update(denoiser_channels=32, denoiser_multipliers=(1, 2))
  config.train.update(duration=70_000, anneal=70_000)
  return config
