"""A folder of samples: one file a seed or one for all, each written whole or not at all."""

import json
import pathlib

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool, Float, Integer
from PIL import Image

from gdm_jax import figures
from gdm_jax.data import units
from gdm_jax.runtime import distributed, files
from gdm_jax.runtime.errors import ConfigError

SETTINGS = 'settings.json'


class SampleFolder:
  """Samples by their seeds. Existing ones are kept, so a rerun generates only those missing.

  settings: all that the samples depend on besides their seeds; they are written into the folder,
  and a folder with other settings raises ConfigError naming those that differ.
  """

  def __init__(self, path: pathlib.Path, settings: dict, single_file: bool):
    self.path, self._single_file = path, single_file
    settings = json.loads(json.dumps(settings))  # tuples become lists
    if path.is_dir() and any(f.suffix in ('.png', '.npz', '.json') for f in path.iterdir()):
      self._check_settings(settings)
    files.make_folder(path)
    if distributed.is_primary():
      for torn in path.glob('*.tmp'):
        torn.unlink()
      with files.atomic_write(path / SETTINGS) as f:
        f.write(json.dumps(settings, indent=2).encode())

  def _check_settings(self, settings):
    file = self.path / SETTINGS
    if not file.exists():
      raise ConfigError(f'{self.path} holds files but no {SETTINGS}; take another folder')
    existing = json.loads(file.read_text())
    differing = [
      f'{key} = {settings.get(key)} (there {existing.get(key)})'
      for key in sorted({*settings, *existing})
      if settings.get(key) != existing.get(key)
    ]
    if differing:
      raise ConfigError(
        f'{self.path} holds samples with other settings: {", ".join(differing)}; '
        'remove it or take another --config.sampling.folder'
      )

  def missing(self, seeds: Integer[np.ndarray, ' n']) -> Bool[np.ndarray, ' n']:
    """Which of the seeds have no sample yet."""
    if not self._single_file:
      return np.array([not self._image(seed).exists() for seed in seeds])
    existing = [np.load(file)['seeds'] for file in self._arrays()]
    return ~np.isin(seeds, np.concatenate([[], *existing]))

  def write(self, seeds: Integer[np.ndarray, ' n'], x: Float[np.ndarray, 'n *grid c']):
    """Adds samples; of images, every process writes its share."""
    if self._single_file:
      if distributed.is_primary():
        _save(self.path / f'samples-{seeds[0]}-{seeds[-1]}.npz', seeds, x)
      return
    share = slice(jax.process_index(), None, jax.process_count())
    for seed, image in zip(seeds[share], units.to_uint8(x[share]), strict=True):
      picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
      with files.atomic_write(self._image(seed)) as f:
        picture.save(f, 'png')

  def finish(self, seeds: Integer[np.ndarray, ' n']) -> Float[np.ndarray, 'n *grid c']:
    """Joins the parts of a single file; returns the samples of the seeds."""
    if not self._single_file:
      return np.stack([figures.load(self._image(seed)) for seed in seeds])
    parts = [np.load(file) for file in self._arrays()]
    all_seeds, first = np.unique(
      np.concatenate([part['seeds'] for part in parts]), return_index=True
    )
    x = np.concatenate([part['x'] for part in parts])[first]
    merged = [file for file in self._arrays() if file.name != 'samples.npz']
    multihost_utils.sync_global_devices('all have read the parts')
    if distributed.is_primary() and merged:
      _save(self.path / 'samples.npz', all_seeds, x)
      for file in merged:
        file.unlink()
    return x[np.searchsorted(all_seeds, seeds)]

  def _image(self, seed):
    return self.path / f'{seed:06d}.png'

  def _arrays(self):
    return sorted(self.path.glob('samples*.npz'))


def _save(file, seeds, x):
  with files.atomic_write(file) as f:
    np.savez(f, x=x, seeds=seeds)
