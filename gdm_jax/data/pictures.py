"""Pictures as they really are: the one reader, and the one walk through folders, of all modes."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

ORIENTATION = 0x0112  # the EXIF tag; 1 is upright


def read_picture(
  file: str | os.PathLike, shape: tuple[int, int, int]
) -> tuple[UInt8[np.ndarray, 'h w c'], str]:
  """A picture of any size as an image of `shape`, and what was done to it.

  Its EXIF orientation is applied, transparency laid on white, colours and grey made what `shape`
  has, the centre cropped to the aspect ratio, and that resized with antialiasing (Lanczos). Of an
  animation it is the first frame. Grey of 16 bits is scaled by the bits that it uses: 10, 12 or 16.

  Args:
    file: of any format that PIL reads.
    shape: (height, width, 1 or 3).

  Returns:
    The image, and a sentence such as '1200 x 800, cropped to 800 x 800, resized to 32 x 32', sizes
    as width x height; '' if nothing was done.

  Raises:
    ValueError: the file cannot be read; the message names it.
  """
  height, width, channels = shape
  changes = []
  with opened(file) as image:
    grey = Image.getmodebase(image.mode) == 'L'
    if getattr(image, 'is_animated', False):
      changes.append('the first frame')
    if image.getexif().get(ORIENTATION, 1) != 1:
      changes.append('turned upright')
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I;16'):
      # Cameras and scanners store 10 and 12 bits in 16; PIL's own conversion would clip them all.
      values = np.asarray(image)
      bits = next((b for b in (10, 12) if values.max() < 2**b), 16)
      image = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
      changes.append(f'{bits} bits made 8')
    if image.has_transparency_data:
      image = image.convert('RGBA')
      if image.getextrema()[-1] != (255, 255):
        changes.append('laid on white')
      image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    if channels == 1 and not grey:
      changes.append('made grey')
    image = image.convert('L' if channels == 1 else 'RGB')

    full = image.size
    scale = min(full[0] / width, full[1] / height)
    cropped = max(1, round(scale * width)), max(1, round(scale * height))
    if cropped != full:
      left, top = (full[0] - cropped[0]) // 2, (full[1] - cropped[1]) // 2
      image = image.crop((left, top, left + cropped[0], top + cropped[1]))
      changes.append('cropped to {} x {}'.format(*cropped))
    if cropped != (width, height):
      image = image.resize((width, height), Image.Resampling.LANCZOS)
      changes.append(f'resized to {width} x {height}')
  sentence = ', '.join(['{} x {}'.format(*full), *changes]) if changes else ''
  return np.array(image).reshape(shape), sentence


@contextlib.contextmanager
def opened(file: str | os.PathLike) -> Iterator[Image.Image]:
  """The picture, of which only the header has been read so far. Raises ValueError."""
  try:
    # Given a name, PIL maps an uncompressed TIFF into memory, and garbles one lying on its side.
    with open(file, 'rb') as stream, Image.open(stream) as image:
      if image.mode in ('I', 'F'):
        raise ValueError('32-bit pixels, of which it is unknown what is white')
      yield image
  except Exception as error:  # of a broken file PIL raises OSError, SyntaxError, struct.error, ...
    reason = 'no picture' if isinstance(error, UnidentifiedImageError) else error
    raise ValueError(f'cannot read {os.fspath(file)} ({reason})') from error


class Found(NamedTuple):
  """The pictures of a folder, relative to it and sorted, and how many files were passed over."""

  files: list[str]
  passed_over: int


def find(folder: str | os.PathLike) -> Found:
  """The pictures at any depth of a folder.

  Links are followed, each folder once. Hidden files and folders are no pictures, nor are folders
  whatever their names. A file is one if its suffix is of a format that PIL reads, or else if PIL
  can open it. Numbers in names sort as numbers.
  """
  files, passed_over, seen = [], 0, set()
  suffixes = Image.registered_extensions()
  for where, folders, names in os.walk(folder, followlinks=True):
    real = os.path.realpath(where)
    if real in seen:
      folders.clear()
      continue
    seen.add(real)
    folders[:] = [name for name in folders if not name.startswith('.')]
    for name in names:
      path = os.path.join(where, name)
      if name.startswith('.') or not os.path.isfile(path):
        continue
      if os.path.splitext(name)[1].lower() in suffixes or _opens(path):
        files.append(os.path.relpath(path, folder))
      else:
        passed_over += 1
  return Found(sorted(files, key=natural), passed_over)


def split_paths(text: str, exists: Callable[[str], bool]) -> list[str]:
  """The paths of PATH1,PATH2, with ~ expanded; one may itself hold commas, if it exists."""
  paths, parts = [], text.split(',')
  while parts:
    # The longest run of parts that exists; else the first part alone, for the error to name.
    for end in range(len(parts), 0, -1):
      path = os.path.expanduser(','.join(parts[:end]))
      if exists(path):
        break
    paths.append(path)
    parts = parts[end:]
  return paths


def natural(name: str) -> list[tuple]:
  """A key that sorts numbers in names as numbers: 2 before 10, a2 before a10."""
  parts = re.split(r'(\d+)', name)
  return [(int(p), '') if i % 2 else (-1, p) for i, p in enumerate(parts)] + [(-2, name)]


def _opens(path):
  try:
    with opened(path):
      return True
  except ValueError:
    return False
