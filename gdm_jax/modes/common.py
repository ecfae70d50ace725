"""What every mode checks before it writes anything."""

import glob
import pathlib

import jax
from ml_collections import ConfigDict

from gdm_jax.data import base
from gdm_jax.data.folder import SUFFIXES
from gdm_jax.runtime.errors import ConfigError


def make_workdir(workdir: pathlib.Path, name: str = ''):
  """Creates the folder. Raises ConfigError, about `name`, where it cannot be written."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    probe = workdir / f'.writable{jax.process_index()}'
    probe.touch()
    probe.unlink()
  except OSError as error:
    name = name or f'--workdir={workdir}'
    raise ConfigError(f'{name} cannot be written: {error.strerror}') from None


def pictures(key: str, patterns: str) -> list[pathlib.Path]:
  """The pictures of files, folders and patterns such as 'a.png,mine/*.jpg'.

  Raises ConfigError where there are none, or two have the same name.
  """
  files = []
  for pattern in patterns.split(','):
    path = pathlib.Path(pattern).expanduser()
    if path.is_dir():
      found = sorted(path.iterdir())
    else:
      found = [path] if path.is_file() else sorted(map(pathlib.Path, glob.glob(str(path))))
    found = [file for file in found if file.suffix.lower() in SUFFIXES]
    if not pattern or not found:
      raise ConfigError(f'{key} = {patterns!r}: no pictures in {pattern!r}')
    files += found
  names = [file.stem for file in files]
  if twice := {name for name in names if names.count(name) > 1}:
    raise ConfigError(f'{key} = {patterns!r}: several pictures named {min(twice)}')
  return files


def check_classes(config: ConfigDict, source: base.Source):
  """Raises ConfigError where the network's classes are not those of the data."""
  if config.model.classes not in (0, source.num_classes):
    raise ConfigError(
      f'model.classes = {config.model.classes}: {config.data.name} has {source.num_classes}; '
      'must be that, or 0 for a model that is given no labels'
    )
