"""Tokens of a partition: fixed sets of elements, each inside one group."""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclasses.dataclass(frozen=True, eq=False)
class Elements:
  """What is known of the elements of an example before any data are seen.

  labels: the group of every element, 0..k-1.
  scale: the standard deviation to expect of every element.
  ranks: of the positions by frequency, if neighbours on the grid are not alike; None in pixels.
  """

  labels: Int[np.ndarray, '*grid c']
  scale: Float[np.ndarray, '*grid c']
  ranks: Int[np.ndarray, '*grid'] | None = None

  @property
  def num_groups(self) -> int:
    """k."""
    return int(self.labels.max()) + 1


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
  """T tokens of P slots each, sorted by group.

  slots: the flat index of the element in each slot; `size`, the number of elements, if it is empty.
    Elements in the same place of their tokens are in the same slot.
  groups: of each token.
  centres: the mean position of a token's elements, on the grid divided by the patch.
  """

  slots: Int[np.ndarray, 'T P']
  groups: Int[np.ndarray, ' T']
  centres: Float[np.ndarray, 'T axes']
  size: int

  def __len__(self) -> int:
    return len(self.groups)

  @property
  def filled(self) -> Bool[np.ndarray, 'T P']:
    """The slots that hold an element."""
    return self.slots < self.size

  @property
  def places(self) -> Int[np.ndarray, ' size']:
    """The slot of each element, an index into all T P of them."""
    return np.argsort(self.slots, axis=None, kind='stable')[: self.size]


@functools.lru_cache
def tokens(elements: Elements, patch: int) -> Tokens:
  """The tokens of a partition.

  In pixels a token is a patch: `patch` positions along every axis, with all channels. Positions are
  counted within their group: in steps of its own stride from its own corner, so that a block is cut
  from its corner on, and a subsampling lattice as the small image that it is. What a patch holds of
  other groups it leaves empty. Ranked coefficients are cut into runs of as many ranks as a patch
  has positions.

  Raises ValueError if no token is full: then the patch is too large for every group.
  """
  *grid, channels = elements.labels.shape
  sides = (patch,) * len(grid)
  made = _assemble(elements, sides)
  positions_held = made.filled.reshape(len(made), math.prod(sides), channels).any(-1)
  if not positions_held.all(-1).any():
    raise ValueError(f'patch = {patch}: no group holds a whole patch, {math.prod(sides)} positions')
  return made


@functools.lru_cache
def cells(elements: Elements, multiple: int) -> tuple[Tokens, tuple[int, ...]]:
  """Tokens that each hold a whole group, as an image of its own; and the sides of these images.

  Positions are counted as for `tokens`. The sides are those of the largest group, at least, and
  multiples of `multiple`. Raises ValueError for ranked coefficients, which are no image.
  """
  if elements.ranks is not None:
    raise ValueError('groups of frequencies are no images')
  extents = [_steps(positions).max(0) + 1 for positions in _positions(elements)]
  sides = tuple(int(-(-n // multiple) * multiple) for n in np.max(extents, axis=0))
  return _assemble(elements, sides), sides


def _positions(elements):
  """Those of each group's elements, [n, axes]."""
  return [np.argwhere(elements.labels == g)[:, :-1] for g in range(elements.num_groups)]


def _assemble(elements, sides):
  """The tokens of patches with these sides."""
  channels, per_patch = elements.labels.shape[-1], math.prod(sides)
  slots, groups, centres = [], [], []
  for group, positions in enumerate(_positions(elements)):
    members = np.flatnonzero(elements.labels == group)
    key, slot = _cut(elements, positions, sides)
    _, token = np.unique(key, axis=0, return_inverse=True)
    token = token.ravel()
    table = np.full((token.max() + 1, per_patch * channels), elements.labels.size)
    table[token, slot * channels + members % channels] = members
    slots.append(table)
    groups.append(np.full(len(table), group))
    count = np.bincount(token)
    centres += [
      np.stack([np.bincount(token, axis) / count for axis in positions.T], -1) / np.array(sides)
    ]
  return Tokens(
    *(np.concatenate(parts) for parts in (slots, groups, centres)), elements.labels.size
  )


def _cut(elements, positions, sides):
  """The token of each position of a group, by any key [n, ...], and its place in it, 0.."""
  if elements.ranks is not None:
    ranks = elements.ranks[tuple(positions.T)]
    nth = np.unique(ranks, return_inverse=True)[1]
    return nth[:, None] // math.prod(sides), nth % math.prod(sides)
  steps = _steps(positions)
  return steps // sides, np.ravel_multi_index((steps % sides).T, sides)


def _steps(positions):
  """Positions of a group in steps of its own stride from its own corner."""
  steps = positions - positions.min(0)
  return steps // np.maximum(np.gcd.reduce(steps, axis=0), 1)
