"""Summaries of a set of images: the moments of all features, and a number of the features."""

import dataclasses
import math

import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float

from gdm_jax.config import MIN_EVALUATED
from gdm_jax.evaluation import distances
from gdm_jax.evaluation.moments import Moments, over_processes
from gdm_jax.typing import AnyArray

KEPT = 10_000  # features kept, for all distances but Frechet's


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
  """Moments of all features, and the first of them, at most KEPT."""

  moments: Moments
  kept: Float[np.ndarray, 'k d']


@dataclasses.dataclass(frozen=True)
class Scores:
  """Distances of generated images to real ones; `kernel_error` is a standard error.

  All but `distance` are of the first `compared` features of both; NaN if a side has kept none.
  """

  distance: float
  kernel: float
  kernel_error: float
  precision: float
  recall: float
  compared: int


class Collector:
  """Accumulates features batch by batch; each process computes moments of its local shards."""

  def __init__(self):
    self._moments: Moments | None = None
    self._kept: list[np.ndarray] = []
    self._wanted = KEPT

  def add(self, features: Float[AnyArray, 'padded d'], rows: slice):
    """Adds rows of a batch that is split over all devices."""
    local = Moments.of(_local_rows(features, rows))
    self._moments = local if self._moments is None else self._moments + local
    if self._wanted > 0:
      self._kept.append(gather_to_host(features)[rows][: self._wanted])
      self._wanted -= len(self._kept[-1])

  def summary(self) -> Summary:
    """Of all processes together, the same on each. Raises ValueError if nothing was added."""
    if self._moments is None:
      raise ValueError('there are no images')
    return Summary(over_processes(self._moments), np.concatenate(self._kept))


def scores(generated: Summary, real: Summary) -> Scores:
  """All distances; all but Frechet's of equally many features of both.

  Of moments that come without features only the Frechet distance is known. Raises ValueError for
  fewer than MIN_EVALUATED images, other features, or features not finite.
  """
  for summary in (generated, real):
    if len(summary.kept) and (n := summary.moments.count) < MIN_EVALUATED:
      raise ValueError(f'{n} images are too few; {MIN_EVALUATED} are the least')
  a, b = generated.moments, real.moments
  distance = distances.frechet(a.mean, a.covariance, b.mean, b.covariance, b.root)
  n = min(len(generated.kept), len(real.kept))
  if not n:
    return Scores(distance, math.nan, math.nan, math.nan, math.nan, 0)
  kept = generated.kept[:n], real.kept[:n]
  return Scores(distance, *distances.kernel(*kept), *distances.precision_recall(*kept), n)


def _local_rows(x, rows):
  """The rows that this process's devices hold, each once."""
  parts = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
  return np.concatenate(
    [
      np.asarray(part)[max(rows.start - first, 0) : max(rows.stop - first, 0)]
      for first, part in sorted(parts.items())
    ]
  )


def gather_to_host(x: Array) -> np.ndarray:
  """A sharded array, whole, on every process."""
  if x.is_fully_addressable:
    return np.asarray(x)
  return multihost_utils.process_allgather(x, tiled=True)
