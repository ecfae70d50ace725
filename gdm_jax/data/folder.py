"""Folders of your own pictures, of any sizes, as examples of one shape."""

import functools
import os
from collections.abc import Callable
from concurrent import futures

import numpy as np
import tqdm
from jaxtyping import Int, Int32

from gdm_jax.data.base import Batch, LazySource
from gdm_jax.data.contents import digest
from gdm_jax.data.pictures import find, natural, opened, read_picture, split_paths
from gdm_jax.runtime import console
from gdm_jax.runtime.errors import DataError

# One pool, however many batches the pipeline reads at once. Threads suffice: PIL releases Python's
# lock while it decodes and resizes.
_THREADS = futures.ThreadPoolExecutor(os.cpu_count())
_LISTED = 100  # messages of broken files
_PART = 1024  # files handed to the threads at once, between two steps of the progress bar


def open_folder(name: str, shape: tuple[int, ...], skip_broken: bool = False) -> LazySource:
  """The pictures of 'folder:PATH' or 'folder:PATH1,PATH2', each of them a class, shuffled.

  Those of a single PATH have its subfolders as classes, by name (numbers as numbers), if every
  picture lies directly in one and there are two or more. Hidden files and folders are skipped
  (`pictures.find`).

  skip_broken: decode every picture once, and leave out those that cannot be, instead of an error.

  Raises:
    DataError: a folder is missing or without pictures, or the shape is none of a picture.
  """
  if len(shape) != 3 or shape[-1] not in (1, 3):
    raise DataError(f'data.shape={shape}: {name} needs (height, width, 1 or 3)')
  folders = split_paths(name.removeprefix('folder:'), os.path.isdir)
  pictures = [_pictures(name, folder) for folder in folders]
  files, owners = [], []
  for i, (folder, inside) in enumerate(zip(folders, pictures, strict=True)):
    files += [os.path.join(folder, picture) for picture in inside]
    owners += [str(i) if len(folders) > 1 else os.path.dirname(picture) for picture in inside]
  if skip_broken:
    files, owners = _without_broken(name, files, owners)

  nested = len(folders) == 1 and not all(owner and os.sep not in owner for owner in owners)
  classes = [] if nested else sorted(set(owners), key=natural)
  if len(classes) < 2:
    classes, label = [], np.zeros(len(files), np.int32)
  else:
    number = {owner: i for i, owner in enumerate(classes)}
    label = np.array([number[owner] for owner in owners], np.int32)
  if len(folders) > 1:
    classes = [os.path.basename(os.path.abspath(folder)) for folder in folders]
  # They are sorted by folder, so that an unshuffled slice would be of few classes.
  shuffled = np.random.default_rng(0).permutation(len(files))
  return LazySource(
    shuffled,
    shape,
    len(classes),
    functools.partial(_read, name, files, label, shape),
    functools.partial(_check, name, files),
    functools.partial(_identify, files, owners, label),
    tuple(classes),
  )


def _pictures(name: str, folder: str) -> list[str]:
  """The paths of a folder's pictures, relative to it, sorted."""
  if not os.path.isdir(folder):
    raise DataError(f'data.name={name!r}: there is no folder {folder!r}')
  found = find(folder)
  if not found.files:
    raise DataError(
      f'data.name={name!r}: no pictures in {folder}, only {found.passed_over} other files'
    )
  if found.passed_over:
    console.log(f'{folder}: {found.passed_over:,} files that are no pictures were passed over')
  return found.files


def _without_broken(name, files, owners):
  """Files and owners without the pictures that cannot be decoded, which are listed."""

  def decode(i):
    with opened(files[i]) as image:
      image.load()

  broken = _failures(name, len(files), decode, 'check')
  if len(broken) == len(files):
    raise DataError(f'data.name={name!r}: none of {len(files):,} pictures can be read')
  _list(broken.values())
  kept = [i for i in range(len(files)) if i not in broken]
  return [files[i] for i in kept], [owners[i] for i in kept]


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
    with opened(files[records[i]]):
      pass

  _each(name, len(records), header, 'check')


def _identify(files, owners, label, records):
  """A digest of names, sizes and labels that does not depend on where the folder is."""
  return digest(
    (owners[i], os.path.basename(files[i]), os.path.getsize(files[i]), int(label[i]))
    for i in records
  )


def _each(name: str, count: int, task: Callable[[int], None], verb: str = ''):
  """Runs task(i) for all i in a thread pool; shows a progress bar if `verb` is given.

  Raises DataError with the ValueError of the first file, by path, and the number of others, which
  are listed.
  """
  failures = _failures(name, count, task, verb)
  if failures:
    others = len(failures) - 1
    if others and verb:
      _list(failures.values())
    rest = f'; nor {others:,} other{"s" * (others > 1)} of {count:,}' if others else ''
    hint = '; --config.data.skip_broken=True leaves them out' if verb else ''
    raise DataError(f'data.name={name!r}: {min(failures.values())}{rest}{hint}')


def _failures(name, count, task, verb):
  """The message of the ValueError of every task(i) that raises one, by i."""

  def attempt(i):
    try:
      task(i)
    except ValueError as error:
      return str(error)

  failures = {}
  disable = None if verb else True  # None: without a terminal
  with tqdm.tqdm(total=count, desc=f'{verb} {name}', disable=disable, delay=2) as progress:
    for start in range(0, count, _PART):
      part = range(start, min(start + _PART, count))
      for i, message in zip(part, _THREADS.map(attempt, part), strict=True):
        if message:
          failures[i] = message
      progress.update(len(part))
  return failures


def _list(messages):
  """Prints every message, sorted, up to a screenful."""
  messages = sorted(messages)
  for message in messages[:_LISTED]:
    console.log(message)
  if len(messages) > _LISTED:
    console.log(f'... and {len(messages) - _LISTED:,} more')
