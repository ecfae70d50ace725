"""Batches of one size, so that one compiled program serves all of them."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int


def round_up(count: int, multiple: int) -> int:
  """The smallest multiple that is not below `count`."""
  return -(-count // multiple) * multiple


def padded(count: int, size: int) -> Int[np.ndarray, ' size']:
  """The indices 0..count-1, repeated from the start up to `size` of them."""
  return np.resize(np.arange(count), size)


def padded_batches(
  count: int, batch: int, devices: int = 1
) -> Iterator[tuple[Int[np.ndarray, ' size'], int]]:
  """The indices 0..count-1 in batches of one size, a multiple of `devices`.

  Yields (indices, valid): of each batch the first `valid` indices are new. The others fill up the
  last batch: they repeat its own.
  """
  size = round_up(min(batch, count), devices)
  for first in range(0, count, max(size, 1)):
    valid = min(size, count - first)
    yield first + padded(valid, size), valid
