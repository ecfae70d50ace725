"""Folders of your own pictures, of any sizes, as examples of one shape."""

import contextlib
import functools
import glob
import os
from collections.abc import Callable, Iterator
from concurrent import futures

import numpy as np
import tqdm
from jaxtyping import Int, Int32, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from gdm_jax.data.base import Batch, LazySource
from gdm_jax.runtime.errors import DataError

SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.gif', '.tif', '.tiff')
# One pool, however many batches the pipeline reads at once. Threads suffice: PIL releases Python's
# lock while it decodes and resizes.
_THREADS = futures.ThreadPoolExecutor(os.cpu_count())
_PART = 1024  # files handed to the threads at once, between two steps of the progress bar


def read_picture(
  file: str | os.PathLike, shape: tuple[int, int, int]
) -> tuple[UInt8[np.ndarray, 'h w c'], str]:
  """A picture of any size as an image of `shape`, and what was done to it.

  Its EXIF orientation is applied, transparency laid on white, colours and grey made what `shape`
  has, the centre cropped to the aspect ratio, and that resized with antialiasing (Lanczos). Of an
  animation it is the first frame.

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
  with _opened(file) as image:
    grey = Image.getmodebase(image.mode) == 'L'
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I;16'):
      # The upper byte, as PIL itself reads 16-bit colours; its conversion of 16-bit grey may clip.
      image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
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
def _opened(file: str | os.PathLike) -> Iterator[Image.Image]:
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


def open_folder(name: str, shape: tuple[int, ...]) -> LazySource:
  """The pictures of 'folder:PATH' or 'folder:PATH1,PATH2', each of them a class, shuffled.

  Those of a single PATH have its subfolders as classes, by name, if every picture lies directly in
  one. Hidden files and folders are skipped.

  Raises:
    DataError: a folder is missing or without pictures, or the shape is none of a picture.
  """
  if len(shape) != 3 or shape[-1] not in (1, 3):
    raise DataError(f'data.shape={shape}: {name} needs (height, width, 1 or 3)')
  folders = [os.path.expanduser(folder) for folder in name.removeprefix('folder:').split(',')]
  pictures = [_pictures(name, folder) for folder in folders]
  if len(folders) > 1:
    owners = [i for i, inside in enumerate(pictures) for _ in inside]
  elif all(picture.count(os.sep) == 1 for picture in pictures[0]):
    owners = [os.path.dirname(picture) for picture in pictures[0]]
  else:
    owners = None
  files = [os.path.join(f, p) for f, inside in zip(folders, pictures, strict=True) for p in inside]
  classes, label = np.unique(owners, return_inverse=True) if owners else ((), np.zeros(len(files)))
  # They are sorted by folder, so that an unshuffled slice would be of few classes.
  shuffled = np.random.default_rng(0).permutation(len(files))
  return LazySource(
    shuffled,
    shape,
    len(classes),
    functools.partial(_read, name, files, label.astype(np.int32), shape),
    functools.partial(_check, name, files),
  )


def _pictures(name: str, folder: str) -> list[str]:
  """The paths of a folder's pictures, relative to it, sorted."""
  if not os.path.isdir(folder):
    raise DataError(f'data.name={name!r}: there is no folder {folder!r}')
  files = glob.glob('**', root_dir=folder, recursive=True)
  pictures = sorted(file for file in files if file.lower().endswith(SUFFIXES))
  if not pictures:
    raise DataError(f'data.name={name!r}: no pictures ({" ".join(SUFFIXES)}) in {folder}')
  return pictures


def _read(
  name: str,
  files: list[str],
  label: Int32[np.ndarray, ' all'],
  shape: tuple[int, int, int],
  records: Int[np.ndarray, ' b'],
  progress: bool,
) -> Batch:
  x = np.empty((len(records), *shape), np.uint8)

  def read(i):
    x[i], _ = read_picture(files[records[i]], shape)

  _each(name, len(records), read, 'decode' if progress else '')
  return {'x': x, 'label': label[records]}


def _check(name: str, files: list[str], records: Int[np.ndarray, ' n']):
  """Opens every picture without decoding it."""

  def header(i):
    with _opened(files[records[i]]):
      pass

  _each(name, len(records), header, 'check')


def _each(name: str, count: int, task: Callable[[int], None], verb: str = ''):
  """Runs task(i) for all i in a thread pool; shows a progress bar if `verb` is given.

  Raises DataError with the ValueError of the first file, by path, and the number of others.
  """

  def attempt(i):
    try:
      task(i)
    except ValueError as error:
      return str(error)

  failures = []
  disable = None if verb else True  # None: without a terminal
  with tqdm.tqdm(total=count, desc=f'{verb} {name}', disable=disable, delay=2) as progress:
    for start in range(0, count, _PART):
      part = range(start, min(start + _PART, count))
      failures += filter(None, _THREADS.map(attempt, part))
      progress.update(len(part))
  if failures:
    others = len(failures) - 1
    rest = f'; nor {others:,} other{"s" * (others > 1)} of {count:,}' if others else ''
    raise DataError(f'data.name={name!r}: {min(failures)}{rest}')
