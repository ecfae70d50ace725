"""Fashion-MNIST with labels, 2 x 2 blocks in random order per example.

  python -m gdm_jax.main --config=configs/fashion.py

21 to 35 minutes on two cores with AVX-512 (106 to 180 images/s), 1.23 M parameters. Of networks
trained for ten minutes this one, 32 channels with multipliers (1, 2, 2), was the best, twice.
By the loss: 0.503 after 56,000 images; (1, 2, 4) with attention at 7 x 7 had 0.524 after 37,000,
(1, 4, 4) 0.520 after 34,000, and 16 channels with (1, 4, 8) 0.532 after 35,000. By the samples:
`experiments.network_shapes`, docs/choose.md.
"""

from configs import default


def get_config():
  config = default.get_config()
  config.data.update(name='fashion', shape=(28, 28, 1))
  config.strategies.main = default.strategy('blocks', (2, 2))
  config.machine.cpu_devices = 2
  config.model.classes = 10
  config.model.ddpmpp.update(
    channels=32, multipliers=(1, 2, 2), blocks=1, attention=(), dropout=0.1
  )
  config.train.update(
    batch=128,
    duration=220_000,
    learning_rate=2e-3,
    ramp=10_000,
    ema_halflife=20_000,
    ema_ramp=0.1,
  )
  config.checkpoint.every = 50_000
  config.evaluation.seeds = '0-1499'
  config.log.update(every=2_560, samples_every=50_000)
  return config
