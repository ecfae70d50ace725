"""Files that are whole or not there; full disks; checksums that tell if a folder is as it was."""

import contextlib
import errno
import json
import os
import pathlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

FULL = {errno.ENOSPC: 'the disk is full', errno.EDQUOT: 'the quota of the disk is used up'}
"""Errors of the system where there is no room, and how to call them."""

CHECKSUMS = 'checksums.json'


@contextlib.contextmanager
def whole(file: pathlib.Path) -> Iterator[BinaryIO]:
  """Opens another name for writing and renames it at the end: no reader ever sees half of it."""
  temporary = file.with_name(file.name + '.tmp')
  try:
    with temporary.open('wb') as f:
      yield f
    temporary.replace(file)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def telling_full_disk() -> Iterator[None]:
  """Raises OSError of FULL where a library says so in an error of its own, not always the last."""
  try:
    yield
  except Exception as error:
    said, cause = '', error
    while cause:
      said, cause = f'{said}\n{cause}'.lower(), cause.__cause__ or cause.__context__
    for number in FULL:
      if (full := os.strerror(number)).lower() in said:
        raise OSError(number, full) from error
    raise


def seal(folder: pathlib.Path, but: str = ''):
  """Leaves the checksum of every file of a folder in it, but for one name, unless it is sealed."""
  if not (folder / CHECKSUMS).exists():
    found = {name: _checksum(folder / name) for name in _names(folder) if name != but}
    with whole(folder / CHECKSUMS) as f:
      f.write(json.dumps(found, indent=0).encode())


def sealed(folder: pathlib.Path) -> bool:
  """Whether it is known what the folder should hold."""
  return (folder / CHECKSUMS).exists()


def damage(folder: pathlib.Path) -> str:
  """The first file of a sealed folder that is not as it was, in words; '' where all are."""
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
  return sorted(name for name in names if not name.startswith(CHECKSUMS))  # half of one, of a kill


def _checksum(file):
  total = 0
  with file.open('rb') as f:
    while part := f.read(2**20):
      total = zlib.crc32(part, total)
  return total
