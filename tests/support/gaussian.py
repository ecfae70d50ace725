"""Ground truth for the tests: data whose optimal prediction u = E[x - z | x_t] has a closed form.

For a Gaussian, or a mixture of Gaussians, in the coefficients of any basis, x_t is a mixture of
Gaussians at any signal levels; so E[x - z | x_t] is linear algebra, written here without using
what is under test.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from gdm_jax import basis as bases
from gdm_jax import grouping, schedule
from gdm_jax import path as paths
from gdm_jax.process import Process


class Mixture(NamedTuple):
  """A mixture of n Gaussians over the d positions of a grid; channels are independent copies."""

  weights: np.ndarray  # [n]
  means: np.ndarray  # [n, d]
  covs: np.ndarray  # [n, d, d]

  @property
  def mean(self) -> np.ndarray:
    """The mean of a mixture of one."""
    return self.means[0]

  @property
  def cov(self) -> np.ndarray:
    """The covariance of a mixture of one."""
    return self.covs[0]

  def log_density(self, x):
    """log p(x) of x [d]."""
    return jax.nn.logsumexp(_log_joint(self.weights, x - self.means, self.covs)[0])


def mixture(d: int, n: int = 1, seed: int = 0) -> Mixture:
  """A random mixture with correlated positions; a Gaussian by default."""
  rng = np.random.default_rng(seed)
  factors = rng.normal(size=(n, d, d)) / np.sqrt(d)
  covs = 0.6 * factors @ factors.transpose(0, 2, 1) + 0.3 * np.eye(d)
  return Mixture(rng.dirichlet(np.full(n, 5.0)), rng.normal(size=(n, d)), covs)


def mix(path: str, level):
  """a and b at a signal level (Eq. 1, 2)."""
  return {
    'linear': (level, 1 - level),
    'variance_preserving': (level, jnp.sqrt(1 - level**2)),
  }[path]


def matrix(basis: bases.Basis):
  """U as a dense [d, d] matrix."""
  d = basis.ranks.size
  return basis.synthesize(jnp.eye(d).reshape(d, *basis.shape, 1)).reshape(d, d).T


def optimal(data: Mixture, process: Process):
  """predict(x_t, alpha[batch, k]) = E[x - z | x_t], exactly."""
  u = matrix(process.basis)
  labels = process.grouping.labels.ravel()
  means, covs = data.means @ u, u.T @ data.covs @ u

  def of_one(y, level):
    a, b = mix(process.path.name, level)
    log_joint, solved = _log_joint(
      data.weights, y - a * means, a[:, None] * covs * a + jnp.diag(b**2)
    )
    expected = means + jnp.einsum('nij,nj->ni', covs * a - jnp.diag(b), solved)
    return jax.nn.softmax(log_joint) @ expected

  def predict(x_t, alpha):
    y = jnp.einsum('ji,bjc->bic', u, x_t.reshape(len(x_t), len(u), -1))
    coefficients = jax.vmap(jax.vmap(of_one, (1, None), 1))(y, alpha[:, labels])
    return jnp.einsum('ij,bjc->bic', u, coefficients).reshape(x_t.shape)

  return predict


def _log_joint(weights, gaps, covs):
  """log of weight_n N(gap_n; 0, cov_n) [n], and cov_n^-1 gap_n [n, d]."""
  factors = jnp.linalg.cholesky(covs)
  solved = jax.vmap(lambda factor, gap: jax.scipy.linalg.cho_solve((factor, True), gap))(
    factors, jnp.broadcast_to(gaps, factors.shape[:2])
  )
  halves = jnp.log(jnp.diagonal(factors, axis1=-2, axis2=-1)).sum(-1)
  square = jnp.sum(gaps * solved, -1)
  constant = gaps.shape[-1] / 2 * np.log(2 * np.pi)
  return jnp.log(weights) - square / 2 - halves - constant, solved


def conditional(data: Mixture, known: np.ndarray, values: np.ndarray):
  """Mean and covariance of a Gaussian's other positions given x[known] = values."""
  rest = ~known
  gain = np.linalg.solve(data.cov[np.ix_(known, known)], data.cov[np.ix_(known, rest)]).T
  mean = data.mean[rest] + gain @ (values - data.mean[known])
  return mean, data.cov[np.ix_(rest, rest)] - gain @ data.cov[np.ix_(known, rest)]


def transport(data: Mixture, process: Process, order, z):
  """Where the generative ODE takes latents z of a Gaussian, exactly.

  A group moves in the conditional distribution given the groups before it, whose covariance
  commutes with itself at every level: it arrives at mean + cov^(1/2) z.
  """
  u = np.asarray(matrix(process.basis))
  mean, cov, labels = data.mean @ u, u.T @ data.cov @ u, np.ravel(process.grouping.labels)
  noise = np.einsum('ji,bjc->bic', u, np.reshape(z, (len(z), len(u), -1)))
  x, known = np.zeros_like(noise), np.zeros(len(u), bool)
  for group in order:
    own = labels == group
    gain = cov[np.ix_(own, known)] @ np.linalg.inv(cov[np.ix_(known, known)])
    values, vectors = np.linalg.eigh(cov[np.ix_(own, own)] - gain @ cov[np.ix_(known, own)])
    root = vectors * np.sqrt(values) @ vectors.T
    gap = x[:, known] - mean[known, None]
    x[:, own] = mean[own, None] + gain @ gap + root @ noise[:, own]
    known |= own
  return np.einsum('ij,bjc->bic', u, x).reshape(np.shape(z))


def conditional_mean(data: Mixture, known: np.ndarray, values: np.ndarray, position: int):
  """E[x_position | x[known] = values] of a mixture; `known` lists positions, perhaps none."""
  parts, log_weights = [], np.log(data.weights)
  for n, (mean, cov) in enumerate(zip(data.means, data.covs, strict=True)):
    known_cov, gap = cov[np.ix_(known, known)], values - mean[known]
    solved = np.linalg.solve(known_cov, gap)
    parts.append(mean[position] + cov[position, known] @ solved)
    log_weights[n] -= 0.5 * (gap @ solved + np.linalg.slogdet(known_cov)[1])
  weights = np.exp(log_weights - log_weights.max())
  return weights @ np.array(parts) / weights.sum()


def quantile_level(data: Mixture, position: int, values):
  """The distribution function of one position of a mixture."""
  scale = np.sqrt(data.covs[:, position, position])
  return norm.cdf((values[:, None] - data.means[:, position]) / scale) @ data.weights


def probes(shape) -> np.ndarray:
  """[d + 1, *grid, 1]: zero and the unit vectors, which determine an affine map."""
  d = int(np.prod(shape))
  return np.concatenate([np.zeros((1, d)), np.eye(d)]).reshape(d + 1, *shape, 1)


def affine(images):
  """Offset [d] and linear part [d, d] of a map from its images of the `probes`."""
  flat = np.asarray(images).reshape(len(images), -1)
  return flat[0], (flat[1:] - flat[0]).T


def pad(table, rows: int) -> np.ndarray:
  """The table with its last row repeated: steps that change nothing, so that shapes agree."""
  return np.concatenate([table, np.repeat(table[-1:], rows - len(table), axis=0)])


class Case(NamedTuple):
  """A way to generate a grid: what the library must get right for every one of them."""

  process: Process
  order: tuple[int, ...]
  cuts: tuple[float, ...] | None
  steps: tuple[int, ...]

  @property
  def shape(self) -> tuple[int, ...]:
    """The grid."""
    return self.process.grouping.shape

  def table(self, times: int = 1) -> np.ndarray:
    """The table with `times` as many steps; every `times`-th row is a row of the plain one."""
    plan = schedule.sequential(self.order, self.cuts)
    return np.asarray(schedule.table(plan, [times * n for n in self.steps]))

  def over(self, path: paths.Path) -> 'Case':
    """The same along another path."""
    return self._replace(process=Process(self.process.grouping, self.process.basis, path))


def _case(basis, groups, order, steps, cuts=None):
  return Case(Process(groups, basis), order, cuts, steps)


def _pixels(groups, *args):
  return _case(bases.pixel(groups.shape), groups, *args)


def _bands(basis, edges, *args):
  return _case(basis, grouping.bands(basis, edges), *args)


CASES = {
  'whole 2': _pixels(grouping.whole((2,)), (0,), (32,)),
  'whole 4x4': _pixels(grouping.whole((4, 4)), (0,), (32,)),
  'rows 4x4': _pixels(grouping.rows((4, 4), 3), (2, 0, 1), (16, 24, 16), (0.2, 0.9)),
  'columns 3x5': _pixels(grouping.columns((3, 5), 2), (1, 0), (32, 16), (0.4,)),
  'blocks 4x4': _pixels(grouping.blocks((4, 4), (2, 2)), (2, 0, 3, 1), (16, 12, 20, 16)),
  'cascade 4x4': _pixels(grouping.cascade((4, 4)), (0, 1), (20, 28), (0.7,)),
  'cascade 5': _pixels(grouping.cascade((5,), 3), (0, 1, 2), (16, 16, 16)),
  'elements 2': _pixels(grouping.elements((2,)), (1, 0), (16, 24)),
  'elements 5': _pixels(grouping.elements((5,)), (3, 1, 4, 0, 2), (12, 12, 16, 12, 12)),
  'cosine 3x5': _bands(bases.cosine((3, 5)), (2, 7), (0, 1, 2), (16, 16, 24)),
  'blur 4x4': _bands(
    bases.blur((4, 4), 1.0, 'reflect'), (1, 6), (1, 2, 0), (16, 24, 16), (0.3, 0.5)
  ),
  'zero blur 3x5': _bands(bases.blur((3, 5), 0.9, 'zero'), (4,), (0, 1), (24, 24)),
}


def data_of(case: Case) -> Mixture:
  return mixture(int(np.prod(case.shape)))


def coarse_and_fine(case: Case):
  fine = case.table(2)
  return np.stack([pad(fine[::2], len(fine)), fine])


def largest(x):
  return np.max(np.abs(x))


def nonlinear(x_t, alpha):
  """Some prediction that is no expectation and mixes all positions and levels."""
  total = jnp.mean(x_t, tuple(range(1, x_t.ndim)), keepdims=True)
  tilt = alpha @ jnp.linspace(0.5, 1, alpha.shape[-1], dtype=x_t.dtype)
  return jnp.cos(3 * x_t) + total * tilt.reshape(-1, *[1] * (x_t.ndim - 1))


def random(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))
