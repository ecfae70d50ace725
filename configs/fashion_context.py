"""Fashion-MNIST with labels, 2 x 2 blocks in random order, by a context network and a denoiser.

python -m gdm_jax.main --config=configs/fashion_context.py
"""

from configs import fashion


def get_config():
  config = fashion.get_config()
  config.model.name = 'context_unet'
  config.model.context_unet.update(
    channels=32, multipliers=(1, 2, 2), blocks=1, attention=(), features=32, dropout=0.1
  )
  config.model.context_unet.update(denoiser_channels=32, denoiser_multipliers=(1, 2))
  return config
