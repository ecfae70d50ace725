"""Arrays in an npz file, written atomically and read without unpickling; a digest of arrays."""

import hashlib
import pathlib

import numpy as np
from flax.traverse_util import flatten_dict

from gdm_jax.runtime import files
from gdm_jax.runtime.files import DamagedFile as Damaged


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
  arrays = files.read_arrays(file)
  if '' in arrays:
    raise Damaged('no npz file, but a single array')
  return arrays
