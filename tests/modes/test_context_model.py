"""A model with a context network in the command: the cache does not change its samples."""

import numpy as np
from PIL import Image

from gdm_jax import main
from tests.support import runs

MODEL = (
  *(f'--config.model.context_unet.{key}' for key in ('channels=8', 'multipliers=1', 'features=4')),
  *(f'--config.model.context_unet.denoiser_{key}' for key in ('channels=8', 'multipliers=1')),
  *('--config.sampling.steps=8', '--config.sampling.seeds=0-4', '--config.log.grid=2'),
)


def test_it_trains_and_samples_with_and_without_the_cache(tmp_path):
  workdir, samples = tmp_path / 'run', {}

  def command(*overrides):
    args = runs.arguments(workdir, *MODEL, *overrides, config='digits_context', steps=3)
    assert main.main(['', *args]) == 0

  command()
  assert np.isfinite([row['loss'] for row in runs.metrics(workdir)]).all()
  for cache in (True, False):
    name = f'cache_{cache}'
    command('--mode=sample', f'--config.sampling.cache={cache}', f'--config.sampling.folder={name}')
    files = sorted((workdir / name).glob('0*.png'))
    samples[cache] = np.stack([np.asarray(Image.open(file)).astype(int) for file in files])
  assert len(samples[True]) == 5
  assert np.abs(samples[True] - samples[False]).max() <= 1
  assert samples[True].std() > 10
