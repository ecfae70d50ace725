"""Pictures that the modes complete and edit are given."""

import glob
import itertools
import os
import pathlib
import re
import zlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from gdm_jax import figures
from gdm_jax.build import System
from gdm_jax.config import blaming
from gdm_jax.data.pictures import find, read_picture, split_paths
from gdm_jax.data.units import from_uint8
from gdm_jax.generation import composing
from gdm_jax.runtime import console
from gdm_jax.runtime.errors import ConfigError

RESERVED = ('sheet', 'completed')  # names of pictures that the modes themselves write
LONGEST = 100  # bytes of a name, of which an output's may hold two


def picture_files(key: str, patterns: str) -> dict[str, pathlib.Path]:
  """The pictures of files, folders and patterns such as 'a.png,mine/*.jpg', by name.

  Of a folder they are those that `pictures.find` finds. A name is the file's without its suffix,
  and with the folders below the one that was given; no two are the same as a file's name, also
  where capitals do not matter. Raises ConfigError if there are none.
  """
  found: dict[pathlib.Path, str] = {}
  for pattern in split_paths(patterns, lambda path: os.path.exists(path) or bool(glob.glob(path))):
    matches = _matches(pattern) if pattern else []
    if not matches:
      raise ConfigError(f'{key} = {patterns!r}: no pictures in {pattern!r}')
    found |= {file: found.get(file, name) for name, file in matches}
  files: dict[str, pathlib.Path] = {}
  taken = set(RESERVED)
  for file, name in found.items():
    # Of a.png and a.jpg the second becomes a_jpg, and whatever is still taken is numbered.
    choices = itertools.chain(
      [name, name + file.suffix.replace('.', '_')], (f'{name}-{i}' for i in itertools.count(2))
    )
    name = next(n for n in map(file_name, choices) if n.lower() not in taken)
    taken.add(name.lower())
    files[name] = file
  return files


def file_name(text: str) -> str:
  """Text as a file's name: letters, digits and ._+- of any script, and not too long."""
  safe = re.sub(r'[^\w.+-]+', '_', text).strip('_.') or '_'
  if len(safe.encode()) > LONGEST:
    end = f'-{zlib.crc32(text.encode()):08x}'
    safe = safe.encode()[: LONGEST - len(end)].decode(errors='ignore') + end
  return safe


def read(
  key: str, files: Iterable[pathlib.Path], shape: tuple[int, ...]
) -> Float[np.ndarray, 'n h w c']:
  """Pictures in the model's size and units; what was done to each is printed.

  Raises ConfigError for one that cannot be read, and for a model of other data.
  """
  if not figures.is_image(shape):
    raise ConfigError(f'{key}: data.shape = {shape} is no picture')
  images = []
  for file in files:
    with blaming(key, file):
      image, changes = read_picture(file, tuple(shape))
    images.append(image)
    if changes:
      console.log(f'{file}: {changes}')
  return from_uint8(np.stack(images))


def recipe(
  config: ConfigDict, system: System, strategy: str, complete: bool = False
) -> composing.Recipe | None:
  """`composing.recipe` with the pictures of `sampling.latents`. Raises ConfigError."""

  def read_each(files):
    paths = [pathlib.Path(file).expanduser() for file in files]
    return read('sampling.latents', paths, config.data.shape)

  return composing.recipe(config, system, strategy, read_each, complete)


def _matches(pattern):
  """The names and files of a folder, a file or a pattern."""
  path = pathlib.Path(pattern)
  if path.is_dir():
    found = find(path)
    if found.passed_over:
      console.log(f'{path}: {found.passed_over:,} files that are no pictures were passed over')
    return [(_name(file), path / file) for file in found.files]
  paths = [path] if path.is_file() else sorted(map(pathlib.Path, glob.glob(pattern)))
  return [(file.stem, file) for file in paths if file.is_file()]


def _name(file):
  return os.path.splitext(file)[0].replace(os.sep, '_')
