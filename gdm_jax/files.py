"""Files that are whole or not there; checksums that tell whether a folder still is as it was."""

import contextlib
import json
import pathlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

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


def seal(folder: pathlib.Path):
  """Leaves the checksum of every file of a folder in it, unless it is sealed."""
  if not (folder / CHECKSUMS).exists():
    found = {name: _checksum(folder / name) for name in _names(folder)}
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
