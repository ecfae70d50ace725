"""A folder of samples: one file a seed or one for all, each written whole or not at all."""

import json
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool, Float, Integer
from PIL import Image

from gdm_jax import figures
from gdm_jax.data import units
from gdm_jax.runtime import console, distributed, errors, files
from gdm_jax.runtime.errors import ConfigError

SETTINGS = 'settings.json'
SINGLE_FILE = 'samples.npz'
FORMER = {'cache'}  # settings of older folders that samples do not depend on
ARRAYS = ('x', 'seeds', 'label')  # of a single file and its parts


def check_finite(x: Float[np.ndarray, 'n *grid c'], name: Callable[[int], str]):
  """Raises DivergedError if a sample is not finite; `name(i)` describes the first of them."""
  errors.check_finite(np.isfinite(x).reshape(len(x), -1).all(1), name)


class SampleFolder:
  """Samples by their seeds. Existing ones are kept, so a rerun generates only those missing.

  settings: all that the samples depend on besides their seeds; they are written into the folder,
  and a folder with other settings raises ConfigError naming those that differ. name: of the path,
  for an error that it cannot be written.
  """

  def __init__(self, path: pathlib.Path, settings: dict, single_file: bool, name: str = ''):
    self.path, self._single_file = path, single_file
    settings = json.loads(json.dumps(settings))  # tuples become lists
    if path.is_dir() and any(f.suffix in ('.png', '.npz', '.json') for f in path.iterdir()):
      self._check_settings(settings)
    files.make_folder(path, name)
    if distributed.is_primary():
      files.remove_left_over(path)
      with files.atomic_write(path / SETTINGS) as f:
        f.write(json.dumps(settings, indent=2).encode())

  def _check_settings(self, settings):
    file = self.path / SETTINGS
    if not file.exists():
      raise ConfigError(f'{self.path} holds files but no {SETTINGS}; take another folder')
    try:
      existing = dict(json.loads(file.read_text()))
    except (ValueError, TypeError):
      raise ConfigError(
        f'{file} is damaged, so it is unknown what these are samples of; remove the folder, or '
        'take another --config.sampling.folder'
      ) from None
    differing = [
      f'{key} = {settings.get(key)} (there {existing.get(key)})'
      for key in sorted({*settings, *existing} - FORMER)
      if settings.get(key) != existing.get(key)
    ]
    if differing:
      raise ConfigError(
        f'{self.path} holds samples with other settings: {", ".join(differing)}; '
        'remove it or take another --config.sampling.folder'
      )

  def missing(self, seeds: Integer[np.ndarray, ' n']) -> Bool[np.ndarray, ' n']:
    """Which of the seeds have no sample yet, or one that cannot be read."""
    if not self._single_file:
      return np.array([not _is_whole(self._image(seed)) for seed in seeds])
    existing = [part['seeds'] for part in self._read_arrays().values()]
    return ~np.isin(seeds, np.concatenate([[], *existing]))

  def write(
    self,
    seeds: Integer[np.ndarray, ' n'],
    labels: Integer[np.ndarray, ' n'],
    x: Float[np.ndarray, 'n *grid c'],
  ):
    """Adds samples; of images, every process writes its share.

    A single file holds `x`, their `seeds` and `label` (-1: none), sorted by seed, and of images
    `arr_0`, uint8, which is the array that other evaluators read.
    """
    if self._single_file:
      if distributed.is_primary():
        file = self.path / f'samples-{seeds[0]}-{seeds[-1]}.npz'
        _save(file, {'x': x, 'seeds': seeds, 'label': labels})
      return
    share = slice(jax.process_index(), None, jax.process_count())
    for seed, image in zip(seeds[share], units.to_uint8(x[share]), strict=True):
      # Not durable, for speed: what a power cut damages is made again.
      with files.atomic_write(self._image(seed), durable=False) as f:
        figures.to_pil(image).save(f, 'png')

  def finish(self, seeds: Integer[np.ndarray, ' n']) -> Float[np.ndarray, 'n *grid c']:
    """Joins the parts of a single file; returns the samples of the seeds."""
    if not self._single_file:
      return np.stack([figures.load(self._image(seed)) for seed in seeds])
    parts = self._read_arrays()
    all_seeds, first = np.unique(
      np.concatenate([part['seeds'] for part in parts.values()]), return_index=True
    )
    joined = {
      name: np.concatenate([part[name] for part in parts.values()])[first] for name in ARRAYS
    }
    merged = [file for file in parts if file.name != SINGLE_FILE]
    multihost_utils.sync_global_devices('all have read the parts')
    if distributed.is_primary() and merged:
      if figures.is_image(joined['x'].shape[1:]):
        joined['arr_0'] = units.to_uint8(joined['x'])
      _save(self.path / SINGLE_FILE, joined)
      for file in merged:
        file.unlink()
    return joined['x'][np.searchsorted(all_seeds, seeds)]

  def _image(self, seed):
    return self.path / f'{seed:06d}.png'

  def _read_arrays(self):
    """Seeds and samples of every file that can be read; others are named."""
    found = {}
    for file in sorted(self.path.glob('samples*.npz')):
      try:
        arrays = files.read_arrays(file)
        unlabelled = np.full(len(arrays['seeds']), -1, np.int32)  # by an older version
        found[file] = {name: {'label': unlabelled, **arrays}[name] for name in ARRAYS}
      except (files.DamagedFile, KeyError) as error:
        console.log(f'{file} is damaged ({error}); its samples are made again')
    return found


def _is_whole(file):
  """Whether a PNG file is there with all its bytes, by its own checksums."""
  try:
    with Image.open(file, formats=['PNG']) as image:
      image.verify()
  except Exception:  # of a broken file PIL raises OSError, SyntaxError, struct.error, ...
    return False
  return True


def _save(file, arrays):
  with files.atomic_write(file) as f:
    np.savez(f, **arrays)
