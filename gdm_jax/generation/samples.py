"""A folder of samples: one file a seed or one for all, each written whole or not at all."""

import json
import pathlib

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool, Float, Int
from PIL import Image

from gdm_jax import figures
from gdm_jax.data import units
from gdm_jax.modes import common
from gdm_jax.runtime import distributed, files
from gdm_jax.runtime.errors import ConfigError


class Folder:
  """Samples by their seeds. What is there already is kept, and need not be made again.

  settings: all that the samples depend on beside their seeds; they are written into the folder,
  and a folder made with other settings raises ConfigError naming those that differ.
  """

  def __init__(self, path: pathlib.Path, settings: dict, single_file: bool):
    self.path, self._single_file = path, single_file
    settings = json.loads(json.dumps(settings))  # tuples become lists
    file = path / 'settings.json'
    if path.is_dir() and any(f.suffix in ('.png', '.npz', '.json') for f in path.iterdir()):
      if not file.exists():
        raise ConfigError(f'{path} holds files but no settings.json; take another folder')
      there = json.loads(file.read_text())
      differing = [
        f'{key} = {settings.get(key)} (there {there.get(key)})'
        for key in sorted({*settings, *there})
        if settings.get(key) != there.get(key)
      ]
      if differing:
        raise ConfigError(
          f'{path} holds samples made otherwise: {", ".join(differing)}; '
          'remove it or take another --config.sampling.folder'
        )
    common.make_workdir(path)
    if distributed.is_primary():
      for torn in path.glob('*.tmp'):
        torn.unlink()
      with files.atomic_write(file) as f:
        f.write(json.dumps(settings, indent=2).encode())

  def missing(self, seeds: Int[np.ndarray, ' n']) -> Bool[np.ndarray, ' n']:
    """Which of the seeds have no sample yet."""
    if not self._single_file:
      return np.array([not self._image(seed).exists() for seed in seeds])
    there = [np.load(file)['seeds'] for file in self._arrays()]
    return ~np.isin(seeds, np.concatenate([[], *there]))

  def write(self, seeds: Int[np.ndarray, ' n'], x: Float[np.ndarray, 'n *grid c']):
    """Adds samples; of images, every process writes its share."""
    if self._single_file:
      if distributed.is_primary():
        _save(self.path / f'samples-{seeds[0]}-{seeds[-1]}.npz', seeds, x)
      return
    mine = slice(jax.process_index(), None, jax.process_count())
    for seed, image in zip(seeds[mine], units.to_uint8(x[mine]), strict=True):
      picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
      with files.atomic_write(self._image(seed)) as f:
        picture.save(f, 'png')

  def finish(self, seeds: Int[np.ndarray, ' n']) -> Float[np.ndarray, 'n *grid c']:
    """Joins the parts of a single file; returns the samples of the seeds."""
    if not self._single_file:
      return np.stack([figures.load(self._image(seed)) for seed in seeds])
    arrays = [np.load(file) for file in self._arrays()]
    every = np.concatenate([array['seeds'] for array in arrays])
    every, first = np.unique(every, return_index=True)
    x = np.concatenate([array['x'] for array in arrays])[first]
    parts = [file for file in self._arrays() if file.name != 'samples.npz']
    multihost_utils.sync_global_devices('all have read the parts')
    if distributed.is_primary() and parts:
      _save(self.path / 'samples.npz', every, x)
      for file in parts:
        file.unlink()
    return x[np.searchsorted(every, seeds)]

  def _image(self, seed):
    return self.path / f'{seed:06d}.png'

  def _arrays(self):
    return sorted(self.path.glob('samples*.npz'))


def _save(file, seeds, x):
  with files.atomic_write(file) as f:
    np.savez(f, x=x, seeds=seeds)
