"""Atomic writes, full disks, and checksums of a folder's files."""

import contextlib
import errno
import json
import os
import pathlib
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import jax
import numpy as np

from gdm_jax.runtime import memory
from gdm_jax.runtime.errors import ConfigError

DISK_FULL = {errno.ENOSPC: 'the disk is full', errno.EDQUOT: 'the quota of the disk is used up'}
"""errno values of a full disk, with the message to show."""

CHECKSUMS = 'checksums.json'
TEMPORARY = '.tmp'  # suffix of files that are being written
LEFT_OVER_SECONDS = 3600  # after which a temporary file counts as left over


@contextlib.contextmanager
def atomic_write(file: pathlib.Path, durable: bool = True) -> Iterator[BinaryIO]:
  """Opens a temporary file and renames it at the end: no reader ever sees half of it.

  Its name is its own, so that several programs may write the same file. durable: the bytes are on
  the disk before the name is, so that a power cut leaves the old file or the new one; it costs
  milliseconds.
  """
  temporary = file.with_name(f'.{file.name}.{uuid.uuid4().hex[:12]}{TEMPORARY}')
  try:
    with temporary.open('wb') as f:
      yield f
      if durable:
        f.flush()
        os.fsync(f.fileno())
    temporary.replace(file)
  finally:
    temporary.unlink(missing_ok=True)


def remove_left_over(folder: pathlib.Path):
  """Removes temporary files of `atomic_write` that a killed program left, an hour ago or more."""
  for file in folder.glob(f'.*{TEMPORARY}'):
    with contextlib.suppress(OSError):  # another program may be quicker
      if time.time() - file.stat().st_mtime > LEFT_OVER_SECONDS:
        file.unlink()


def make_folder(folder: pathlib.Path, name: str = ''):
  """Creates a folder. Raises ConfigError, about `name`, if it cannot be written to."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f'.writable{jax.process_index()}'
    probe.touch()
    probe.unlink()
  except OSError as error:
    name = name or f'--workdir={folder}'
    raise ConfigError(f'{name} cannot be written: {error.strerror}') from None


def read_rows(file: pathlib.Path) -> list[dict]:
  """The objects of a file of JSON lines; without those that are torn or damaged."""
  rows = []
  for line in file.read_bytes().splitlines():
    with contextlib.suppress(ValueError):
      rows.append(json.loads(line))
  return [row for row in rows if isinstance(row, dict)]


class DamagedFile(ValueError):
  """A file that cannot be read; the message says why, without the file's name."""


def read_arrays(file: pathlib.Path) -> dict[str, np.ndarray]:
  """The arrays of an npz file by name, or {'': array} of an npy file; nothing is unpickled.

  Raises DamagedFile for a missing or damaged file, or one of something else.
  """
  try:
    size = file.stat().st_size
    if zipfile.is_zipfile(file):
      with zipfile.ZipFile(file) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > (there := memory.host_memory()):
      raise DamagedFile(f'{size / 2**30:,.0f} GiB, and this machine has {there / 2**30:,.0f}')
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
      return {'': loaded}
    with loaded:
      return dict(loaded)
  except DamagedFile:
    raise
  except OSError as error:
    raise DamagedFile(error.strerror or str(error)) from None
  except Exception as error:  # of damage numpy, zipfile, zlib and struct raise whatever they meet
    raise DamagedFile(f'no npz file, or damaged: {error}'.splitlines()[0]) from error


@contextlib.contextmanager
def raising_disk_full() -> Iterator[None]:
  """Re-raises as OSError if any exception in the chain reports a full disk.

  Libraries report one in errors of their own, not always in the last of the chain.
  """
  try:
    yield
  except Exception as error:
    texts, cause = [], error
    while cause:
      texts.append(str(cause).lower())
      cause = cause.__cause__ or cause.__context__
    for number in DISK_FULL:
      if any(os.strerror(number).lower() in text for text in texts):
        raise OSError(number, os.strerror(number)) from error
    raise


def write_checksums(folder: pathlib.Path, exclude: str = ''):
  """Writes checksums of all files in the folder except `exclude`; no-op if already present."""
  if not has_checksums(folder):
    checksums = {name: _checksum(folder / name) for name in _names(folder) if name != exclude}
    with atomic_write(folder / CHECKSUMS) as f:
      f.write(json.dumps(checksums, indent=0).encode())


def has_checksums(folder: pathlib.Path) -> bool:
  """Whether the folder has checksums."""
  return (folder / CHECKSUMS).exists()


def find_damage(folder: pathlib.Path) -> str:
  """The first file of a folder that does not match its checksum, as a phrase; '' if all do."""
  try:
    expected = json.loads((folder / CHECKSUMS).read_text()).items()
  except (OSError, ValueError, AttributeError):
    return f'{CHECKSUMS} cannot be read'
  for name, checksum in expected:
    if not (folder / name).is_file():
      return f'{name} is missing'
    if _checksum(folder / name) != checksum:
      return f'{name} was changed'
  return ''


def _names(folder):
  files = (file for file in folder.rglob('*') if file.is_file())
  names = (str(file.relative_to(folder)) for file in files)
  # A temporary file of the checksums may be left by a killed process.
  return sorted(name for name in names if name != CHECKSUMS and not name.endswith(TEMPORARY))


def _checksum(file):
  total = 0
  with file.open('rb') as f:
    while part := f.read(2**20):
      total = zlib.crc32(part, total)
  return total
