"""Paths of the command line: all expand alike, and none is an address."""

import os
import pathlib

from ml_collections import ConfigDict

from gdm_jax.runtime.errors import ConfigError

KEYS = (
  *('data.name', 'machine.compilation_cache', 'evaluation.weights', 'evaluation.reference'),
  *('complete.images', 'complete.mask', 'edit.images'),
  *('sampling.folder', 'complete.folder', 'edit.folder', 'export.folder'),
)
"""The config's keys that hold files or folders; some several, some after a colon."""


def expand(key: str, path: str) -> pathlib.Path:
  """A path with ~ expanded. Raises ConfigError, about `key`, for what is no path, as gs://bucket."""
  _refuse_address(key, path)
  return pathlib.Path(path).expanduser()


def expand_all(config: ConfigDict):
  """Expands the ~ of the output folders in a config; what reads the others expands them itself.

  Raises ConfigError for an address.
  """
  for key in KEYS:
    section, name = key.split('.')
    _refuse_address(key, config[section][name])
    if name == 'folder':
      config[section][name] = os.path.expanduser(config[section][name])


def _refuse_address(key, path):
  if '\0' in path:
    raise ConfigError(f'{key} = {path!r} is no name of a file')
  if '://' in path:
    raise ConfigError(
      f'{key} = {path}: files must be on this machine or mounted there, not behind an address'
    )
