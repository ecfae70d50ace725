"""Groupings: the partition {S_j} of the data's elements (Section 3.1) and the paper's strategies.

A group is a set of elements that share a signal level: positions of the grid with all their
channels, or single channels of positions. Which group comes first is not decided here but by the
order of a `schedule`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Int, Shaped

from gdm_jax.basis import Basis
from gdm_jax.typing import AnyArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Grouping:
  """A partition of the grid: `labels[i]` = j if position i is in S_j, j = 0..num_groups-1.

  by_channel: whether the last axis of `labels` is the channels, which may then be in different
    groups; otherwise the channels of a position share its group.
  """

  labels: Int[AnyArray, '*grid'] | Int[AnyArray, '*grid c']
  num_groups: int = dataclasses.field(metadata={'static': True})
  by_channel: bool = dataclasses.field(default=False, metadata={'static': True})

  @property
  def shape(self) -> tuple[int, ...]:
    """The grid."""
    return self.labels.shape[:-1] if self.by_channel else self.labels.shape

  @property
  def of_elements(self) -> Int[AnyArray, '*grid c']:
    """The labels with an axis for channels, of length 1 if these share their group."""
    return self.labels if self.by_channel else self.labels[..., None]


def whole(shape: Sequence[int]) -> Grouping:
  """One group, k = 1: an ordinary diffusion model (Eq. 2)."""
  return Grouping(np.zeros(shape, np.int32), 1)


def rows(shape: Sequence[int], k: int) -> Grouping:
  """k horizontal bands of nearly equal height, group 0 at the top (Table 1, Bottom-to-Top).

  For a signal, k consecutive pieces. Raises ValueError unless 1 <= k <= shape[0].
  """
  return _along_axis(shape, 0, k)


def columns(shape: Sequence[int], k: int) -> Grouping:
  """k vertical bands of nearly equal width, group 0 at the left (Table 1, Right-to-Left).

  Raises ValueError unless the grid has two axes or more and 1 <= k <= shape[1].
  """
  if len(shape) < 2:
    raise ValueError(f'columns: shape {tuple(shape)} has no second axis; use rows')
  return _along_axis(shape, 1, k)


def _along_axis(shape: Sequence[int], axis: int, k: int) -> Grouping:
  size = shape[axis]
  if not 1 <= k <= size:
    raise ValueError(f'{k} groups along axis {axis} of length {size}: must be 1 to {size}')
  line = np.arange(size) * k // size
  line = line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
  return Grouping(np.broadcast_to(line, shape).astype(np.int32), k)


def blocks(shape: Sequence[int], parts: Sequence[int]) -> Grouping:
  """Rectangular blocks, `parts[a]` along axis a, numbered in raster order (Fig. 1b, Fig. 5).

  Raises ValueError unless there is one part per axis and no axis is cut finer than it is long.
  """
  if len(parts) != len(shape):
    raise ValueError(f'blocks: {tuple(parts)} must give one number per axis of {tuple(shape)}')
  per_axis = [_along_axis(shape, axis, k).labels for axis, k in enumerate(parts)]
  return Grouping(np.ravel_multi_index(per_axis, parts).astype(np.int32), int(np.prod(parts)))


def cascade(shape: Sequence[int], k: int = 2) -> Grouping:
  """Subsampling lattices of a cascaded diffusion model (Appendix C.2).

  Group 0 is the coarsest lattice, of stride 2**(k-1); group j adds the positions of the lattice
  of stride 2**(k-1-j) that no coarser one has. Raises ValueError if a group would be empty.
  """
  if k < 1:
    raise ValueError(f'cascade: k = {k} must be at least 1')
  labels = np.full(shape, k - 1, np.int32)
  for j in reversed(range(k - 1)):
    labels[(slice(None, None, 2 ** (k - 1 - j)),) * len(shape)] = j
  if len(np.unique(labels)) < k:
    raise ValueError(f'cascade: k = {k} leaves groups empty on a grid of {tuple(shape)}')
  return Grouping(labels, k)


def elements(shape: Sequence[int], channels: int = 0) -> Grouping:
  """Every position its own group, k = d, in raster order: autoregression (Appendix C.1).

  channels: if given, also every channel of a position, the channels of one after another.
  """
  by_channel = channels > 0
  full = (*shape, channels) if by_channel else tuple(shape)
  d = int(np.prod(full))
  return Grouping(np.arange(d, dtype=np.int32).reshape(full), d, by_channel)


def channels(shape: Sequence[int], k: int) -> Grouping:
  """Every one of k channels its own group: all positions of the first channel, of the second, ...

  Raises ValueError for fewer than two channels, of which there is only one group.
  """
  if k < 2:
    raise ValueError(f'channels: {k} of them are no groups; there must be 2 or more, or use whole')
  return Grouping(np.broadcast_to(np.arange(k, dtype=np.int32), (*shape, k)), k, by_channel=True)


def from_labels(labels: Shaped[np.ndarray, '...'], shape: Sequence[int], channels: int) -> Grouping:
  """A partition of your own: the group of every position, or of every channel of every position.

  Raises ValueError for another shape than the grid's, with or without channels, and for numbers
  that are not 0..k-1 without a gap.
  """
  labels, grid = np.asarray(labels), tuple(shape)
  if labels.shape not in (grid, (*grid, channels)):
    raise ValueError(f'labels of shape {labels.shape}: must be {grid} or {(*grid, channels)}')
  found = np.unique(labels)
  if found.dtype.kind not in 'iu' or not np.array_equal(found, np.arange(len(found))):
    numbers = ', '.join(map(str, found[:8])) + ', ...' * (len(found) > 8)
    raise ValueError(f'labels {numbers}: must be the numbers 0 to k-1, each of them')
  return Grouping(labels.astype(np.int32), len(found), labels.shape != grid)


def bands(basis: Basis, edges: Sequence[int]) -> Grouping:
  """Frequency bands of a basis, group 0 the lowest: ranks [0, e_0), [e_0, e_1), ... (Section 4.3).

  `edges` (30, 100, 500) are the paper's S_1 = {0..29}, {30..99}, {100..499} and the rest. Ranks
  count per channel. Raises ValueError unless the edges ascend strictly within (0, d).
  """
  d = int(np.prod(basis.shape))
  if any(b <= a for a, b in zip((0, *edges), (*edges, d), strict=True)):
    raise ValueError(f'bands: edges {tuple(edges)} must ascend strictly between 0 and {d}')
  labels = np.searchsorted(np.asarray(edges), np.asarray(basis.ranks), side='right')
  return Grouping(labels.astype(np.int32), len(edges) + 1)


def refine(*groupings: Grouping) -> tuple[Grouping, Int[np.ndarray, 'm k']]:
  """The common refinement of several groupings of one grid, so that one network serves them all.

  Returns the refined grouping, numbered by the tuples of old labels in lexicographic order, and
  `indices[m][j]`: the group of grouping m that holds refined group j. A schedule over grouping m
  is then `Schedule.over(indices[m])` over the refined groups. Raises ValueError for different
  grids.
  """
  shapes = {g.shape for g in groupings}
  if len(shapes) != 1:
    raise ValueError(f'refine: groupings of different grids {sorted(shapes)}')
  if by_channel := any(g.by_channel for g in groupings):
    labels = np.broadcast_arrays(*(np.asarray(g.of_elements) for g in groupings))
  else:
    labels = [np.asarray(g.labels) for g in groupings]
  stacked = np.stack([each.ravel() for each in labels])
  indices, refined = np.unique(stacked, axis=1, return_inverse=True)
  refined = refined.reshape(labels[0].shape).astype(np.int32)
  return Grouping(refined, indices.shape[1], by_channel), indices.astype(np.int32)


def _bands_of(basis: Basis, *edges: int) -> Grouping:
  if basis.is_pixel:
    raise ValueError('bands need a frequency basis, and the basis is the pixel one')
  return bands(basis, edges)


GROUPINGS: dict[str, Callable[..., Grouping]] = {
  'whole': lambda basis: whole(basis.shape),
  'rows': lambda basis, k: rows(basis.shape, k),
  'columns': lambda basis, k: columns(basis.shape, k),
  'blocks': lambda basis, *parts: blocks(basis.shape, parts),
  'cascade': lambda basis, k: cascade(basis.shape, k),
  'elements': lambda basis, *channels: elements(basis.shape, *channels),
  'channels': lambda basis, k: channels(basis.shape, k),
  'bands': _bands_of,
}
"""By the name in a config's `strategies.NAME.grouping`; called with the basis, whose shape is the
grid, and the numbers of `strategies.NAME.groups`."""
