"""Pictures that the modes complete and edit are given."""

import glob
import pathlib

from gdm_jax.data.folder import SUFFIXES
from gdm_jax.runtime.errors import ConfigError


def picture_files(key: str, patterns: str) -> list[pathlib.Path]:
  """The pictures of files, folders and patterns such as 'a.png,mine/*.jpg'.

  Raises ConfigError if there are none, or two have the same name.
  """
  files = []
  for pattern in patterns.split(','):
    path = pathlib.Path(pattern).expanduser()
    if path.is_dir():
      matches = sorted(path.iterdir())
    else:
      matches = [path] if path.is_file() else sorted(map(pathlib.Path, glob.glob(str(path))))
    matches = [file for file in matches if file.suffix.lower() in SUFFIXES]
    if not pattern or not matches:
      raise ConfigError(f'{key} = {patterns!r}: no pictures in {pattern!r}')
    files += matches
  names = [file.stem for file in files]
  if duplicates := {name for name in names if names.count(name) > 1}:
    raise ConfigError(f'{key} = {patterns!r}: several pictures named {min(duplicates)}')
  return files
