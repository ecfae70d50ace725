"""Arrays in an npz file, written atomically and read without unpickling; a digest of arrays."""

import hashlib
import pathlib
import zipfile
import zlib

import numpy as np
from flax.traverse_util import flatten_dict

from gdm_jax.runtime import files


class Damaged(ValueError):
  """A file without readable arrays; the message says why."""


def write(file: pathlib.Path, **arrays: np.ndarray | str | float):
  """Writes arrays atomically."""
  file.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic_write(file) as f:
    np.savez(f, **arrays)


def digest(tree: dict) -> str:
  """Eight hexadecimal digits of the SHA-256 of a tree's arrays and their names."""
  total = hashlib.sha256()
  for name, value in sorted(flatten_dict(tree, sep='/').items()):
    total.update(name.encode() + np.asarray(value).tobytes())
  return total.hexdigest()[:8]


def read(file: pathlib.Path) -> dict[str, np.ndarray]:
  """The arrays of a file by name. Raises Damaged."""
  try:
    with np.load(file, allow_pickle=False) as archive:
      return dict(archive)
  except OSError as error:
    raise Damaged(error.strerror or str(error)) from None
  # What numpy, zipfile and zlib say of damage; NotImplementedError, a RuntimeError: of an unknown
  # compression; TypeError and AttributeError: a single array, not an archive of them.
  except (
    *(ValueError, EOFError, RuntimeError, TypeError, AttributeError, LookupError),
    *(zipfile.BadZipFile, zlib.error),
  ) as error:
    raise Damaged(f'no npz file, or damaged: {error}') from error
