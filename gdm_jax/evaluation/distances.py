"""Distances between two sets of features: Frechet, kernel, precision and recall."""

import numpy as np
from jaxtyping import Float

BLOCK = 1000  # features of each set in one estimate of the kernel distance
NEIGHBOURS = 3  # Kynkaanniemi et al. 2019
CHUNK = 1024  # rows of distances held at once

Features = Float[np.ndarray, '_ d']  # sets may differ in size


def frechet(
  mean_a: Float[np.ndarray, '...'],
  covariance_a: Float[np.ndarray, '...'],
  mean_b: Float[np.ndarray, '...'],
  covariance_b: Float[np.ndarray, '...'],
  root_b: Float[np.ndarray, '...'] | None = None,
) -> float:
  """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), in the square of the features' unit.

  With C = R R^T the last trace is the sum of the singular values of R_a^T R_b, which keeps its
  accuracy if covariances have no full rank (fewer samples than features); the eigenvalues of
  C_a C_b would give half the digits. What is no more than float64's rounding of the traces is 0.

  root_b: R_b, if it is already known. Raises ValueError if a number is not finite or the
  shapes differ (Heusel et al. 2017, Eq. 6).
  """
  statistics = mean_a, covariance_a, mean_b, covariance_b
  d = len(mean_a)
  if [np.shape(x) for x in statistics] != [(d,), (d, d)] * 2:
    raise ValueError(f'statistics of different features: {[np.shape(x) for x in statistics]}')
  _check_finite(mean_a, mean_b)
  traces = np.trace(covariance_a) + np.trace(covariance_b)
  root_b = root(covariance_b) if root_b is None else root_b
  shared = np.linalg.svd(root(covariance_a).T @ root_b, compute_uv=False).sum()
  distance = np.square(mean_a - mean_b).sum() + traces - 2 * shared
  # Equal statistics leave up to three times d eps of the traces.
  return float(distance) if distance > 10 * d * np.finfo(float).eps * traces else 0.0


def root(covariance: Float[np.ndarray, 'd d']) -> Float[np.ndarray, 'd d']:
  """R with R R^T = C, of C's own rank. Raises ValueError if a number is not finite."""
  _check_finite(covariance)
  values, vectors = np.linalg.eigh(covariance)
  # Without full rank the other eigenvalues are rounding errors, whose roots are not small.
  values[values < len(values) * np.finfo(float).eps * values.max(initial=0)] = 0
  return vectors * np.sqrt(values)


def _check_finite(*arrays):
  if not all(np.isfinite(x).all() for x in arrays):
    raise ValueError('the statistics are not all finite')


def kernel(a: Features, b: Features) -> tuple[float, float]:
  """The squared maximum mean discrepancy and its standard error; of Inception's features KID.

  The kernel is (x y / d + 1)^3 (Binkowski et al. 2018). It is the mean of unbiased estimates on
  disjoint blocks, ten at least, so their spread gives an honest error; it may be below zero. The
  blocks are drawn at random, by a fixed seed: in samples that go through the classes in turn every
  block of neighbours is balanced, more than independent ones are, and would come out below zero.
  Raises ValueError for fewer than 20 features in a set.
  """
  n = min(len(a), len(b))
  if n < 20:
    raise ValueError(f'a kernel distance needs 20 features of each set at least, not {n}')
  size = min(BLOCK, n // 10)
  count = n // size
  rng = np.random.default_rng(0)
  blocks = (
    np.asarray(x, np.float64)[rng.permutation(len(x))[: count * size]].reshape(count, size, -1)
    for x in (a, b)
  )
  values = [_discrepancy(x, y) for x, y in zip(*blocks, strict=True)]
  return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(count))


def _discrepancy(x, y):
  def mean(p, q, diagonal):
    gram = (p @ q.T / p.shape[1] + 1) ** 3
    pairs = gram.size - (0 if diagonal else len(gram))
    return (gram.sum() - (0 if diagonal else np.trace(gram))) / pairs

  return mean(x, x, False) + mean(y, y, False) - 2 * mean(x, y, True)


def precision_recall(generated: Features, real: Features) -> tuple[float, float]:
  """Precision (fraction of generated features inside the real manifold) and recall (the converse).

  A manifold is the balls about a set's features that reach to their third neighbour of that set
  (Kynkaanniemi et al. 2019, Eq. 2). Compare only figures of equal numbers of features. Raises
  ValueError for fewer than four features in a set.
  """
  if min(len(generated), len(real)) <= NEIGHBOURS:
    raise ValueError(f'precision and recall need {NEIGHBOURS + 1} features of each set at least')
  centre = np.mean(real, axis=0, dtype=np.float64)  # distances lose fewer digits near the origin
  generated, real = (np.asarray(x, np.float64) - centre for x in (generated, real))
  return _covered(generated, real), _covered(real, generated)


def _covered(points, manifold):
  radii = np.concatenate(
    [np.partition(d, NEIGHBOURS, axis=1)[:, NEIGHBOURS] for d in _distances(manifold, manifold)]
  )  # of each set's own distances the smallest, 0, is to itself
  return float(
    np.mean([inside for d in _distances(points, manifold) for inside in (d <= radii).any(1)])
  )


def _distances(a, b):
  """Squared distances, a chunk of the rows of a at a time."""
  squares = np.square(b).sum(1)
  for rows in np.split(a, range(CHUNK, len(a), CHUNK)):
    yield np.maximum(np.square(rows).sum(1)[:, None] + squares - 2 * rows @ b.T, 0)
