"""Atomic writes, full disks, and checksums of a folder's files."""

import contextlib
import errno
import json
import os
import pathlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import jax

from gdm_jax.runtime.errors import ConfigError

DISK_FULL = {errno.ENOSPC: 'the disk is full', errno.EDQUOT: 'the quota of the disk is used up'}
"""errno values of a full disk, with the message to show."""

CHECKSUMS = 'checksums.json'


@contextlib.contextmanager
def atomic_write(file: pathlib.Path) -> Iterator[BinaryIO]:
  """Opens a temporary file and renames it at the end: no reader ever sees half of it."""
  temporary = file.with_name(file.name + '.tmp')
  try:
    with temporary.open('wb') as f:
      yield f
    temporary.replace(file)
  finally:
    temporary.unlink(missing_ok=True)


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
  return sorted(name for name in names if not name.startswith(CHECKSUMS))


def _checksum(file):
  total = 0
  with file.open('rb') as f:
    while part := f.read(2**20):
      total = zlib.crc32(part, total)
  return total
