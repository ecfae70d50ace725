"""Data sets by name. Nothing here imports TensorFlow."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gdm_jax.data import arrays, even_pixels, folder, idx, synthetic, tfds
from gdm_jax.data.base import ArraySource, LazySource, Source, require_shape
from gdm_jax.runtime.errors import DataError


class Kind(NamedTuple):
  """A kind of data set: `open(name, split, shape)` gives all examples of one of its splits."""

  open: Callable[[str, str, tuple[int, ...]], ArraySource | LazySource]
  splits: tuple[str, ...] = ('train',)


KINDS = {
  'digits': Kind(lambda name, split, shape: arrays.digits()),
  'digit_pairs': Kind(lambda name, split, shape: arrays.digit_pairs()),
  'mixture': Kind(lambda name, split, shape: arrays.mixture()),
  'signals': Kind(lambda name, split, shape: synthetic.signals()),
  'volumes': Kind(lambda name, split, shape: synthetic.volumes()),
  'even_pixels': Kind(
    lambda name, split, shape: even_pixels.open_even_pixels(split, shape),
    tuple(even_pixels.SPLITS),
  ),
  'fashion': Kind(lambda name, split, shape: idx.fashion(split, shape), idx.SPLITS),
  'idx': Kind(idx.open_idx, idx.SPLITS),
  'npz': Kind(lambda name, split, shape: arrays.npz(name)),
  'folder': Kind(lambda name, split, shape: folder.open_folder(name, shape)),
}
"""By what `data.name` begins with."""

NAMES = (
  *('digits', 'digit_pairs', 'even_pixels', 'fashion', 'mixture', 'signals', 'volumes'),
  *('idx:FOLDER', 'npz:FILE', 'folder:PATH', 'tfds:NAME'),
)
EDGE = r'-?\d+%?'  # of a slice: a number of examples, or a percentage


def load(
  name: str,
  split: str,
  shape: Sequence[int],
  data_dir: str | None = None,
  memory_bytes: int = 4 * 2**30,
  skip_broken: bool = False,
  check: bool = True,
) -> Source:
  """Opens a data set.

  Args:
    name: 'digits', 'digit_pairs', 'mixture', 'npz:FILE' (`arrays`), 'signals', 'volumes'
      (`synthetic`), 'even_pixels' (`even_pixels`), 'fashion', 'idx:FOLDER' (`idx.open_idx`),
      'folder:PATH' or 'folder:PATH1,PATH2' (`folder.open_folder`), or 'tfds:NAME'
      (`tfds.open_tfds`).
    split: 'train' or a slice of it, such as 'train[:90%]' or 'train[-200:]'; 'test' of 'fashion',
      'even_pixels' and 'idx:'; for TFDS any split.
    shape: the model's (*grid, channels).
    data_dir: where TFDS looks; None is TFDS's default, which TFDS_DATA_DIR sets.
    memory_bytes: images that take no more than this are decoded once, here; others whenever an
      example is read.
    skip_broken: leave out pictures of a folder that cannot be decoded.
    check: look at all images that are not decoded here. What is wrong with them should fail before
      any work, not at some training step.

  Raises:
    DataError: the name, the split or the files do not exist, the shape differs, or pictures
      cannot be read.
  """
  if name.startswith('tfds:'):
    source = tfds.open_tfds(name, split, tuple(shape), data_dir or None)
  else:
    source = _open_slice(name, split, tuple(shape), skip_broken)
  if isinstance(source, ArraySource):
    return source
  if len(source) * np.prod(shape) <= memory_bytes:
    return source.decoded()
  if check:
    source.check()
  return source


def require_disjoint(
  name: str,
  split: str,
  key: str,
  other: str,
  shape: tuple[int, ...],
  data_dir: str | None = None,
):
  """Raises DataError if two splits of a data set share examples; key: of the second."""
  taken, wanted = (list(_ranges(name, s, shape, data_dir)) for s in (split, other))
  for place, first, last in taken:
    for also, begin, end in wanted:
      if place == also and (shared := min(last, end) - max(first, begin)) > 0:
        raise DataError(
          f'{key} = {other!r}: {shared:,} examples are those of data.split = {split!r} too; '
          "it must be another part, as 'train[90%:]' beside 'train[:90%]'"
        )


def _ranges(name, split, shape, data_dir):
  """Where a split that exists lies: (what, first, last), last excluded."""
  if name.startswith('tfds:'):
    yield from tfds.ranges(name, split, data_dir)
    return
  base, *edges = re.fullmatch(rf'(\w+)(?:\[({EDGE})?:({EDGE})?\])?', split).groups()
  length = len(KINDS[name.split(':')[0]].open(name, base, shape))
  chosen = range(length)[slice(*(_position(edge, length) for edge in edges))]
  yield base, chosen.start, chosen.stop


def _open_slice(name, split, shape, skip_broken) -> ArraySource | LazySource:
  """A split of a data set of `KINDS`, or a slice of one."""
  kind = KINDS.get(name.split(':')[0])
  if kind is None or any(valid.startswith(f'{name}:') for valid in NAMES):
    raise DataError(f'data.name={name!r} is unknown; valid are {", ".join(NAMES)}')
  part = re.fullmatch(rf'(\w+)(?:\[({EDGE})?:({EDGE})?\])?', split)
  if not part or part[1] not in kind.splits:
    have = ' and '.join(kind.splits)
    raise DataError(f'data.split={split!r}: {name} has only {have}, and slices as train[:90%]')
  if skip_broken and name.startswith('folder:'):
    source = folder.open_folder(name, shape, skip_broken)
  else:
    source = kind.open(name, part[1], shape)
  require_shape(name, source.shape, shape)
  chosen = slice(*(_position(edge, len(source)) for edge in part.groups()[1:]))
  if not range(len(source))[chosen]:
    raise DataError(f'data.split={split!r} leaves nothing of the {len(source):,} of {name}')
  return source.subset(chosen)


def _position(edge: str | None, length: int) -> int | None:
  """The index of an edge; percentages are rounded as TFDS does."""
  if edge and edge.endswith('%'):
    return round(int(edge[:-1]) * length / 100)
  return int(edge) if edge else None
