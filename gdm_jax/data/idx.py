"""Images in the IDX format: MNIST and its relatives, and the Fashion-MNIST of this package.

The format (LeCun et al. 1998): two zero bytes, the type, the number of axes, the length of each as
a big-endian 32-bit integer, then the values, big-endian.
"""

import dataclasses
import gzip
import lzma
import math
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

from gdm_jax.data.base import ArraySource, count_classes
from gdm_jax.data.units import LEVEL
from gdm_jax.runtime.errors import DataError

FASHION_MNIST = Path(__file__).parent / 'fashion_mnist'
"""The first 10,000 images of Fashion-MNIST's training set and the first 2,000 of its test set."""

FASHION_CLASSES = (
  *('T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat'),
  *('Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot'),
)

SPLITS = ('train', 'test')

UBYTE = 8
_TYPES = {UBYTE: 'uint8', 9: 'int8', 11: 'int16', 12: 'int32', 13: 'float32', 14: 'float64'}
_OPENERS: dict[str, Callable] = {'.gz': gzip.open, '.xz': lzma.open}


def fashion(split: str, shape: tuple[int, ...]) -> ArraySource:
  """Fashion-MNIST (Xiao et al. 2017): 10,000 training and 2,000 test images of ten classes.

  28 x 28 x 1, or smaller by averaging (`open_idx`).
  """
  source = open_idx(f'idx:{FASHION_MNIST}', split, shape)
  return dataclasses.replace(source, class_names=FASHION_CLASSES)


def open_idx(name: str, split: str, shape: tuple[int, ...]) -> ArraySource:
  """The images and labels of 'idx:FOLDER', as they are or gzip or xz compressed.

  A folder of several sets, such as EMNIST's, needs the beginning of the files' names too:
  'idx:FOLDER/emnist-letters'. Without a file of labels there are no classes.

  Args:
    name: 'idx:FOLDER'.
    split: 'train' or 'test'.
    shape: (height, width, channels). If it is the files' divided by a whole number n, images are
      averaged over n x n pixels and rounded.

  Raises:
    DataError: files are missing, damaged, or hold something else than images and labels.
  """
  folder, prefix = Path(name.removeprefix('idx:')).expanduser(), ''
  if not folder.is_dir():
    folder, prefix = folder.parent, folder.name
  if not folder.is_dir():
    raise DataError(f'data.name={name!r}: there is no folder {folder / prefix}')
  images_file = _find(name, folder, prefix, split, 'images')
  x = _read_values(name, images_file)
  if x.ndim not in (3, 4) or not x.size:
    raise DataError(f'data.name={name!r}: {images_file} has the shape {x.shape}, not of images')
  x = _averaged(x if x.ndim == 4 else x[..., None], shape)

  labels_file = _find(name, folder, prefix, split, 'labels', required=False)
  if labels_file is None:
    return ArraySource(x, np.zeros(len(x), np.int32), 0, LEVEL)
  label = _read_values(name, labels_file).astype(np.int32)
  if label.shape != (len(x),):
    raise DataError(
      f'data.name={name!r}: {labels_file} has {label.shape}, but there are {len(x):,} images'
    )
  return ArraySource(x, label, count_classes(label), LEVEL)


def _find(
  name: str, folder: Path, prefix: str, split: str, kind: str, required: bool = True
) -> Path | None:
  """The one file of a split's images or labels. Raises DataError."""
  word = 'train' if split == 'train' else 't10k|test'
  pattern = re.compile(rf'(.*)(?:{word})-{kind}[.-]idx\d-ubyte(?:\.gz|\.xz)?')
  names = (file.name for file in sorted(folder.iterdir()) if file.name.startswith(prefix))
  found = [match for match in map(pattern.fullmatch, names) if match]
  if len(sets := {match[1] for match in found}) > 1:
    choices = ', '.join(f'idx:{folder / each}' for each in sorted(sets))
    raise DataError(f'data.name={name!r}: {folder} holds several sets; give one of {choices}')
  if required and not found:
    raise DataError(
      f'data.name={name!r}: there is no {prefix}{word}-{kind}-idx*-ubyte in {folder}, '
      'nor one that ends in .gz or .xz'
    )
  return folder / found[0].string if found else None


def _read_values(name: str, file: Path) -> UInt8[np.ndarray, '...']:
  """The array of an IDX file of bytes. Raises DataError."""
  try:
    with _OPENERS.get(file.suffix, open)(file, 'rb') as stream:
      content = stream.read()
  except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
    raise DataError(f'data.name={name!r}: cannot read {file} ({error})') from error

  zeros, code, axes = content[:2], *content[2:4].ljust(2, b'\0')
  start = 4 + 4 * axes
  if zeros != b'\0\0' or code not in _TYPES or not axes or len(content) < start:
    raise DataError(f'data.name={name!r}: {file} is no IDX file; it begins with {content[:4]!r}')
  if code != UBYTE:
    raise DataError(f'data.name={name!r}: {file} holds {_TYPES[code]}; images and labels are uint8')
  shape = tuple(np.frombuffer(content, '>u4', axes, 4).tolist())
  if len(content) - start != math.prod(shape):
    raise DataError(
      f'data.name={name!r}: {file} says {" x ".join(map(str, shape))} values = '
      f'{math.prod(shape):,}, but holds {len(content) - start:,}'
    )
  return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _averaged(
  x: UInt8[np.ndarray, 'n h w c'], shape: tuple[int, ...]
) -> Shaped[np.ndarray, 'n h2 w2 c']:
  """Images averaged over n x n pixels, if that gives the shape; else as they are."""
  _, height, width, channels = x.shape
  if len(shape) != 3 or shape[-1] != channels or shape[:2] == (height, width) or 0 in shape:
    return x
  n = height // shape[0]
  if n < 1 or (shape[0] * n, shape[1] * n) != (height, width):
    return x
  tiles = x.reshape(len(x), shape[0], n, shape[1], n, channels)
  return np.round(tiles.mean((2, 4))).astype(np.uint8)
