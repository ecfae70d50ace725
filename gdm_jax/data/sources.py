"""Data sets by name. Nothing here imports TensorFlow."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from gdm_jax.data import arrays, folder, tfds
from gdm_jax.data.base import ArraySource, LazySource, Source, require_shape
from gdm_jax.runtime.errors import DataError

KINDS: dict[str, Callable[[str, tuple[int, ...]], ArraySource | LazySource]] = {
  'digits': lambda name, shape: arrays.digits(),
  'mixture': lambda name, shape: arrays.mixture(),
  'npz': lambda name, shape: arrays.npz(name),
  'folder': folder.open_folder,
}
"""By what `data.name` begins with: opens all examples of (name, shape of one)."""

NAMES = ('digits', 'mixture', 'npz:FILE', 'folder:PATH', 'tfds:NAME')
EDGE = r'-?\d+%?'  # of a slice: a number of examples, or a percentage


def load(
  name: str,
  split: str,
  shape: Sequence[int],
  data_dir: str | None = None,
  memory_bytes: int = 4 * 2**30,
) -> Source:
  """Opens a data set.

  Args:
    name: 'digits', 'mixture', 'npz:FILE' (`arrays`), 'folder:PATH' or 'folder:PATH1,PATH2'
      (`folder.open_folder`), or 'tfds:NAME' (`tfds.open_tfds`).
    split: 'train' or a slice of it, such as 'train[:90%]' or 'train[-200:]'; for TFDS any split.
    shape: the model's (*grid, channels).
    data_dir: where TFDS looks; None is TFDS's default, which TFDS_DATA_DIR sets.
    memory_bytes: images that take no more than this are decoded once, here; others whenever an
      example is read.

  Raises:
    DataError: the name, the split or the files do not exist, the shape differs, or pictures
      cannot be read.
  """
  if name.startswith('tfds:'):
    source = tfds.open_tfds(name, split, tuple(shape), data_dir or None)
  else:
    source = _open_slice(name, split, tuple(shape))
  if isinstance(source, ArraySource):
    return source
  if len(source) * np.prod(shape) <= memory_bytes:
    return source.decoded()
  source.check()  # what is wrong should fail here, not at some training step
  return source


def _open_slice(name: str, split: str, shape: tuple[int, ...]) -> ArraySource | LazySource:
  """A slice of a data set that has no split but 'train'."""
  kind = name.split(':')[0]
  if kind not in KINDS:
    raise DataError(f'data.name={name!r} is unknown; valid are {", ".join(NAMES)}')
  if not (part := re.fullmatch(rf'train(?:\[({EDGE})?:({EDGE})?\])?', split)):
    raise DataError(f'data.split={split!r}: {name} has only train, and slices as train[:90%]')
  source = KINDS[kind](name, shape)
  require_shape(name, source.shape, shape)
  chosen = slice(*(_position(edge, len(source)) for edge in part.groups()))
  if not range(len(source))[chosen]:
    raise DataError(f'data.split={split!r} leaves nothing of the {len(source):,} of {name}')
  return source.subset(chosen)


def _position(edge: str | None, length: int) -> int | None:
  """The index of an edge; percentages are rounded as TFDS does."""
  if edge and edge.endswith('%'):
    return round(int(edge[:-1]) * length / 100)
  return int(edge) if edge else None
