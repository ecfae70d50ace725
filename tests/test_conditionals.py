"""Costs of single groups against closed forms: Gaussian data, whose optimal prediction is known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from gdm_jax import basis as bases
from gdm_jax import conditionals, grouping, ordering
from gdm_jax import path as paths
from gdm_jax.process import Process
from tests.support import gaussian
from tests.support.gaussian import mixture

pytestmark = pytest.mark.usefixtures('float64')

SIZE = 4
CASES = {
  'pixels': Process(grouping.rows((SIZE,), 3), bases.pixel((SIZE,))),
  'cosine': Process(
    grouping.bands(bases.cosine((SIZE,)), (1, 3)), bases.cosine((SIZE,)), paths.variance_preserving
  ),
}
ORDERS = list(itertools.permutations(range(3)))
TAUS, WEIGHTS = conditionals.comb(24)


def in_basis(process):
  """Mean and covariance of the coefficients, and the group of each."""
  data, u = mixture(SIZE), np.asarray(gaussian.matrix(process.basis))
  return data.mean @ u, u.T @ data.cov @ u, np.ravel(process.grouping.labels)


def conditional_cov(process, known, j):
  """Of group j given the groups in `known`."""
  _, cov, labels = in_basis(process)
  a, b = np.isin(labels, list(known)), labels == j
  gain = cov[np.ix_(b, a)] @ np.linalg.inv(cov[np.ix_(a, a)])
  return cov[np.ix_(b, b)] - gain @ cov[np.ix_(a, b)]


def flags(known):
  return np.isin(np.arange(3), list(known))


def drawn(n):
  data = mixture(SIZE)
  x = data.mean + np.random.default_rng(0).normal(size=(n, SIZE)) @ np.linalg.cholesky(data.cov).T
  return jnp.asarray(x[..., None])


@jax.jit
def squares_of_optimal(process, x, known, moving):
  predict = gaussian.optimal(mixture(SIZE), process)
  seeds = jnp.arange(len(x), dtype=jnp.uint32)
  return conditionals.squares(predict, process, x, seeds, known, moving, TAUS)


def expected_squares(cov):
  """E || x - z - E[x - z | x_t] ||^2 at the taus, of N(0, cov)."""
  eye = np.eye(len(cov))
  return np.array(
    [
      np.trace(
        cov
        + eye
        - (t * cov - (1 - t) * eye)
        @ np.linalg.solve(t**2 * cov + (1 - t) ** 2 * eye, t * cov - (1 - t) * eye)
      )
      for t in TAUS
    ]
  )


@pytest.mark.parametrize('name', CASES)
def test_squared_errors_are_those_of_a_gaussian_at_every_level(name):
  process = CASES[name]
  n, x = 4000, drawn(4000)
  for known, j in (((), 0), ((2,), 1), ((0, 1), 2)):
    errors, noises = squares_of_optimal(process, x, flags(known), flags([j]))
    exact = expected_squares(conditional_cov(process, known, j))
    deviation = np.std(errors, axis=1, ddof=1) / np.sqrt(n)
    assert np.max(np.abs(np.mean(errors, axis=1) - exact) / deviation) < 4
    size = np.sum(np.ravel(process.grouping.labels) == j)
    np.testing.assert_allclose(np.mean(noises, axis=1), size, rtol=0.15)
    loss = np.asarray(conditionals.loss(errors, WEIGHTS))
    gap = loss.mean() - WEIGHTS @ exact
    assert abs(gap) < 4 * loss.std(ddof=1) / np.sqrt(n)


@pytest.mark.parametrize('name', CASES)
def test_the_bound_of_the_optimal_prediction_is_the_entropy_in_every_order(name):
  """The chain rule: the likelihood has no order. The errors are in closed form here."""
  process, totals = CASES[name], []
  sizes = np.bincount(np.ravel(process.grouping.labels))
  for order in ORDERS:
    total = 0.0
    for i, j in enumerate(order):
      cov = conditional_cov(process, order[:i], j)
      errors, noises = expected_squares(cov)[:, None], np.full((len(TAUS), 1), float(sizes[j]))
      nats = float(conditionals.bound(errors, noises, int(sizes[j]), TAUS, WEIGHTS)[0])
      exact = multivariate_normal(cov=cov).entropy()
      assert nats == pytest.approx(exact, abs=1e-5)
      total += nats
    totals.append(total)
  np.testing.assert_allclose(
    totals, multivariate_normal(cov=mixture(SIZE).cov).entropy(), atol=1e-4
  )


def test_the_loss_does_depend_on_the_order():
  process = CASES['pixels']
  losses = [
    sum(
      WEIGHTS @ expected_squares(conditional_cov(process, order[:i], j))
      for i, j in enumerate(order)
    )
    for order in ORDERS
  ]
  assert np.ptp(losses) > 0.01
  best, total = ordering.best_order(
    lambda known, j: float(WEIGHTS @ expected_squares(conditional_cov(process, known, j))), 3
  )
  assert (best, total) == (ORDERS[np.argmin(losses)], pytest.approx(min(losses)))


def test_the_measured_bound_has_the_entropy_as_its_mean_and_errors_raise_it():
  process, n = CASES['pixels'], 4000
  x, known, moving = drawn(n), flags([2]), flags([0])
  size = int(np.sum(np.ravel(process.grouping.labels) == 0))
  errors, noises = squares_of_optimal(process, x, known, moving)
  nats = np.asarray(conditionals.bound(errors, noises, size, TAUS, WEIGHTS))
  exact = multivariate_normal(cov=conditional_cov(process, (2,), 0)).entropy()
  assert abs(nats.mean() - exact) < 4 * nats.std(ddof=1) / np.sqrt(n)
  assert nats.std(ddof=1) < 5 * size  # the noise's own square is taken out

  def wrong(x_t, alpha):
    return gaussian.optimal(mixture(SIZE), process)(x_t, alpha) + 0.3

  seeds = jnp.arange(n, dtype=jnp.uint32)
  errors, noises = conditionals.squares(wrong, process, x, seeds, known, moving, TAUS)
  assert np.mean(conditionals.bound(errors, noises, size, TAUS, WEIGHTS)) > nats.mean() + 0.05


@pytest.mark.parametrize('name', CASES)
def test_nll_is_the_conditional_density_and_its_sum_has_no_order(name):
  process, n = CASES[name], 3
  predict, x = gaussian.optimal(mixture(SIZE), process), drawn(n)
  z = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))
  nll = jax.jit(lambda known, moving: conditionals.nll(predict, process, x, z, known, moving, 24))
  table = np.zeros((8, 3, n))
  for subset, j in ordering.pairs(3):
    table[subset, j] = nll(flags(ordering.members(subset)), flags([j]))
  data = mixture(SIZE)
  exact = -multivariate_normal(data.mean, data.cov).logpdf(np.asarray(x)[..., 0])
  totals = ordering.totals(table, np.array(ORDERS))
  np.testing.assert_allclose(totals, np.broadcast_to(exact, totals.shape), atol=1e-4)


def test_the_error_of_a_solver_falls_with_its_steps_and_is_of_the_group_alone():
  process = CASES['pixels']
  predict, x = gaussian.optimal(mixture(SIZE), process), drawn(16)
  z = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))
  few, more = (
    np.mean(
      conditionals.solver_error(predict, process, x, z, flags([1]), flags([0]), steps, 'euler')
    )
    for steps in (8, 16)
  )
  assert few / more == pytest.approx(4, rel=0.35)  # order 1, squared

  def blind(x_t, alpha):  # of the other groups' error it must not count
    return jnp.where(process.coefficient_map(flags([0])), 0.5, jnp.sin(9 * x_t))

  error = conditionals.solver_error(blind, process, x, z, flags([1]), flags([0]), 1, 'euler')
  np.testing.assert_allclose(error, 0, atol=1e-20)


def test_noise_is_of_the_example_and_the_level():
  seeds = np.arange(4, dtype=np.uint32)
  z = conditionals.noise(seeds, 0, (3, 1))
  np.testing.assert_array_equal(conditionals.noise(seeds[2:], 0, (3, 1)), z[2:])
  assert not np.any(conditionals.noise(seeds, 1, (3, 1)) == z)
