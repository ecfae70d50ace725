"""What every mode checks before it writes anything."""

import pathlib

import jax
from ml_collections import ConfigDict

from gdm_jax.config import ConfigError
from gdm_jax.data import sources


def check_devices(config: ConfigDict, *keys: str):
  """Raises ConfigError where a batch size does not divide over the devices."""
  devices = jax.device_count()
  for key in keys:
    section, name = key.split('.')
    if config[section][name] % devices:
      raise ConfigError(f'{key} = {config[section][name]} does not divide over {devices} devices')


def make_workdir(workdir: pathlib.Path):
  """Creates the folder. Raises ConfigError where it cannot be written."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    probe = workdir / f'.writable{jax.process_index()}'
    probe.touch()
    probe.unlink()
  except OSError as error:
    raise ConfigError(f'--workdir={workdir} cannot be written: {error.strerror}') from None


def check_classes(config: ConfigDict, source: sources.Source):
  """Raises ConfigError where the network's classes are not those of the data."""
  if config.model.classes not in (0, source.num_classes):
    raise ConfigError(
      f'model.classes = {config.model.classes}: {config.data.name} has {source.num_classes}; '
      'must be that, or 0 for a model that is given no labels'
    )
