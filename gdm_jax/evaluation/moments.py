"""Means and covariances of features, streamed in float64 over batches, devices and processes."""

import dataclasses
import functools
import operator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float

from gdm_jax.evaluation import distances


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
  """The number of features, their mean, and their scatter about it."""

  count: int
  mean: Float[np.ndarray, ' d']
  scatter: Float[np.ndarray, 'd d']

  @classmethod
  def of(cls, features: Float[np.ndarray, 'n d']) -> 'Moments':
    """The moments of a batch; it may be empty."""
    features = np.asarray(features, np.float64)
    mean = features.mean(0) if len(features) else np.zeros(features.shape[1])
    centred = features - mean
    return cls(len(features), mean, centred.T @ centred)

  def __add__(self, other: 'Moments') -> 'Moments':
    """Those of both together (Chan et al. 1983): no difference of large sums is ever taken."""
    count = self.count + other.count
    if not count:
      return self
    step = other.mean - self.mean
    mean = self.mean + step * (other.count / count)
    between = np.outer(step, step) * (self.count * other.count / count)
    return Moments(count, mean, self.scatter + other.scatter + between)

  @property
  def covariance(self) -> Float[np.ndarray, 'd d']:
    """Unbiased; its rank is below `count`. Raises ValueError for fewer than two features."""
    if self.count < 2:
      raise ValueError(f'a covariance needs two samples at least, not {self.count}')
    return self.scatter / (self.count - 1)

  @functools.cached_property
  def root(self) -> Float[np.ndarray, 'd d']:
    """R with R R^T the covariance; cached, since every distance to a reference needs it."""
    return distances.root(self.covariance)


def over_processes(moments: Moments) -> Moments:
  """The sum over all processes, the same on each; every process must call it."""
  if jax.process_count() == 1:
    return moments
  packed = np.concatenate([[moments.count], moments.mean, moments.scatter.ravel()])
  # As bytes: jax would convert float64 to float32.
  gathered = multihost_utils.process_allgather(packed.view(np.uint8))
  d = len(moments.mean)
  parts = [np.ascontiguousarray(row).view(np.float64) for row in gathered]
  unpacked = [Moments(int(p[0]), p[1 : d + 1], p[d + 1 :].reshape(d, d)) for p in parts]
  return functools.reduce(operator.add, unpacked)
