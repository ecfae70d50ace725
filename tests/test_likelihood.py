"""Likelihoods against closed forms, group by group, and the mode that reports them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from gdm_jax import basis as bases
from gdm_jax import grouping, likelihood, schedule, solvers
from gdm_jax import path as paths
from gdm_jax.data import arrays, sources, units
from gdm_jax.process import Process
from tests.support import gaussian
from tests.support.gaussian import CASES, Case

pytestmark = pytest.mark.usefixtures('float64')

POINT = Case(Process(grouping.elements((2,)), bases.pixel((2,))), (1, 0), None, (32, 32))


@functools.partial(jax.jit, static_argnames='solver')
def of_optimal(process, data, table, x, probes=None, solver='rk4'):
  predict = gaussian.optimal(data, process)
  return likelihood.log_likelihood(predict, process, table, x, probes, solver)


def drawn(case, data, n=3, channels=2):
  """Examples of a Gaussian; channels are independent copies."""
  noise = np.random.default_rng(0).normal(size=(n, channels, len(data.mean)))
  x = data.mean + noise @ np.linalg.cholesky(data.cov).T
  return np.moveaxis(x, 1, 2).reshape(n, *case.shape, channels)


def conditionals(case, data, x):
  """log p(x_Sj | the groups before) of a Gaussian, exactly, [batch, k]."""
  u, labels = np.asarray(gaussian.matrix(case.process.basis)), case.process.grouping.labels.ravel()
  c = np.einsum('ji,bjc->bci', u, x.reshape(len(x), len(u), -1))
  rotated = gaussian.Mixture(data.weights, data.means @ u, u.T @ data.covs @ u)
  terms, known = np.zeros((len(x), len(case.order))), np.zeros(len(u), bool)
  for group in case.order:
    own = labels == group
    for example, channel in np.ndindex(c.shape[:2]):
      value = c[example, channel]
      mean, cov = gaussian.conditional(rotated, known, value[known])
      now = own[~known]
      terms[example, group] += multivariate_normal.logpdf(
        value[own], mean[now], cov[np.ix_(now, now)]
      )
    known |= own
  return terms


def gaussian_setting(name, path=paths.linear, **options):
  case = CASES[name].over(path)
  data = gaussian.mixture(int(np.prod(case.shape)))
  x = drawn(case, data, **options)
  dims = np.bincount(case.process.grouping.labels.ravel()) * x.shape[-1]
  return case, data, x, path.level(case.table()), dims


@pytest.mark.parametrize(
  ('name', 'path'),
  [
    ('blocks 4x4', paths.linear),
    ('elements 5', paths.variance_preserving),
    ('cosine 3x5', paths.variance_preserving),
    ('blur 4x4', paths.linear),
  ],
  ids=lambda value: getattr(value, 'name', value),
)
def test_every_conditional_of_a_gaussian_is_exact(name, path):
  case, data, x, table, dims = gaussian_setting(name, path)
  found, exact = of_optimal(case.process, data, table, x), conditionals(case, data, x)
  assert np.max(np.abs(found - exact) / dims) < 2e-6
  flat = np.moveaxis(x, -1, 1).reshape(-1, len(data.mean))
  total = multivariate_normal.logpdf(flat, data.mean, data.cov).reshape(len(x), -1).sum(1)
  assert np.max(np.abs(found.sum(1) - total)) / dims.sum() < 1e-6


@pytest.mark.parametrize(
  'solver', [name for name, s in solvers.SOLVERS.items() if s.order and not s.first_evaluations]
)
def test_error_falls_with_the_order_of_the_solver(solver):
  case, data, x, _, _ = gaussian_setting('cascade 5', paths.variance_preserving)
  exact, times = conditionals(case, data, x), (2, 4, 8)
  tables = [case.process.path.level(case.table(n)) for n in times]
  along = [
    of_optimal(case.process, data, gaussian.pad(t, len(tables[-1])), x, solver=solver)
    for t in tables
  ]
  errors = [np.sqrt(np.mean((found - exact) ** 2)) for found in along]
  slope = -np.polyfit(np.log(times), np.log(errors), 1)[0]
  assert abs(slope - solvers.SOLVERS[solver].order) < 0.3


def test_the_adaptive_solver_needs_the_boundaries_alone():
  pytest.importorskip('diffrax')
  case, data, x, _, _ = gaussian_setting('elements 5')
  table = schedule.table(schedule.sequential(case.order, case.cuts), len(case.order))
  solver = solvers.adaptive(1e-8, 1e-8)
  found = of_optimal(case.process, data, table, x, solver=solver)
  np.testing.assert_allclose(found, conditionals(case, data, x), atol=1e-5)


def test_a_reversible_or_unknown_solver_is_refused():
  case, data, x, table, _ = gaussian_setting('elements 2')
  with pytest.raises(ValueError, match="solver 'reversible_heun' evaluates before"):
    of_optimal(case.process, data, table, x, solver='reversible_heun')
  with pytest.raises(ValueError, match="solver 'rk9' is unknown"):
    of_optimal(case.process, data, table, x, solver='rk9')


def test_probes_see_the_moving_group_alone():
  # Of an element by itself any probe of 1 or -1 gives the exact derivative; the whole row of
  # derivatives would give another for every probe.
  case, data, x, table, _ = gaussian_setting('elements 5', channels=1)
  probes = likelihood.rademacher(jnp.arange(len(x)), 1, x.shape[1:])
  estimate = of_optimal(case.process, data, table, x, probes)
  np.testing.assert_allclose(estimate, of_optimal(case.process, data, table, x), atol=1e-9)


def test_probes_are_unbiased():
  case, data, x, table, _ = gaussian_setting('cosine 3x5', n=1)
  copies = np.repeat(x, 128, axis=0)
  probes = likelihood.rademacher(jnp.arange(128), 2, x.shape[1:])
  estimates = of_optimal(case.process, data, table, copies, probes, 'heun')
  error = np.std(estimates, axis=0) / np.sqrt(128)
  assert np.all(np.abs(estimates.mean(0) - conditionals(case, data, x)) < 4 * error + 1e-3)
  assert np.max(error) > 1e-2


def test_an_example_does_not_depend_on_its_batch():
  seeds, x = jnp.array([5, 9, 2]), jnp.zeros((3, 4, 1))
  probes, noisy = likelihood.rademacher(seeds, 4, (4, 1)), likelihood.dequantise(x, 0.25, seeds)
  assert probes.shape == (4, 3, 4, 1)
  np.testing.assert_array_equal(np.unique(probes), [-1, 1])
  np.testing.assert_array_equal(probes[:, 1:], likelihood.rademacher(seeds[1:], 4, (4, 1)))
  np.testing.assert_array_equal(noisy[1:], likelihood.dequantise(x[1:], 0.25, seeds[1:]))
  assert np.ptp(noisy, axis=0).min() > 0


def test_dequantised_values_fill_their_bins():
  x = jnp.full((1, 4000, 1), 0.5)
  noisy = likelihood.dequantise(x, 0.25, jnp.zeros(1, int))
  assert 0.375 <= noisy.min() < 0.376
  assert 0.624 < noisy.max() <= 0.625
  assert abs(noisy.mean() - 0.5) < 0.005


def test_bits_of_values_that_are_all_alike():
  # 256 values with one density over [-1, 1], padded by half a bin: 8 bits each.
  width = units.LEVEL
  nats = -3 * np.log(256 * width)
  assert likelihood.bits_per_dim(nats, 3, width) == pytest.approx(8)
  assert likelihood.bits_per_dim(nats, 3) == pytest.approx(np.log2(256 * width))


def test_sources_know_their_bins(tmp_path):
  assert sources.load('digits', 'train', (8, 8, 1)).bin_width == 1 / 8
  assert sources.load('mixture', 'train', (2, 1)).bin_width == 0
  for dtype, width in (np.uint8, units.LEVEL), (np.float32, 0):
    np.savez(tmp_path / 'x.npz', x=np.arange(6).reshape(3, 2, 1).astype(dtype))
    assert sources.load(f'npz:{tmp_path}/x.npz', 'train', (2, 1)).bin_width == width


def toy():
  """The mixture of configs/toy_2d.py, in the form that has an optimal prediction."""
  mixture = arrays.Mixture()
  covs = np.broadcast_to(mixture.std**2 * np.eye(2), (len(mixture.weights), 2, 2))
  return mixture, gaussian.Mixture(np.array(mixture.weights), np.array(mixture.means), covs)


def grid(reach, n):
  """Midpoints [n * n, 2, 1] of squares that fill [-reach, reach]^2, and the area of one."""
  line = (np.arange(n) + 0.5) * (2 * reach / n) - reach
  points = np.stack(np.meshgrid(line, line, indexing='ij'), -1).reshape(-1, 2, 1)
  return points, (2 * reach / n) ** 2


def test_density_of_the_mixture_and_its_integral():
  mixture, data = toy()
  points, area = grid(1.9, 40)
  density = np.exp(of_optimal(POINT.process, data, POINT.table(), points).sum(1))
  exact = np.exp(mixture.log_density(points[..., 0]))
  assert abs(density.sum() * area - 1) < 2e-3
  assert np.max(np.abs(density - exact)) < 0.01 * exact.max()


@pytest.mark.parametrize('path', paths.PATHS.values(), ids=paths.PATHS)
def test_density_of_any_prediction_integrates_to_one(path):
  # Not only of the optimal one, and also where the groups look at each other's noise.
  rng = np.random.default_rng(0)
  mix, level = rng.normal(size=(2, 2)), rng.normal(size=(2, 2))
  case = POINT.over(path)

  def predict(x_t, alpha):
    return jnp.sin(2 * x_t[..., 0] @ mix + alpha @ level)[..., None] - 0.5 * x_t

  @jax.jit
  def log_density(table, x):
    return likelihood.log_likelihood(predict, case.process, table, x).sum(1)

  points, area = grid(7.0, 100)
  assert abs(np.exp(log_density(path.level(case.table()), points)).sum() * area - 1) < 1e-3


def test_groups_that_move_together_have_the_right_sum():
  """As the refined groups of one strategy do."""
  case, data, x, _, _ = gaussian_setting('elements 5')
  halves = np.array([0, 0, 1, 1, 1])
  table = schedule.table(schedule.sequential((1, 0)), 64)[:, halves]
  together = Case(Process(grouping.Grouping(halves, 2), case.process.basis), (1, 0), None, (64,))
  found = of_optimal(case.process, data, table, x)
  exact = conditionals(together, data, x)
  np.testing.assert_allclose(found[:, :2].sum(1), exact[:, 0], atol=1e-5)
  np.testing.assert_allclose(found[:, 2:].sum(1), exact[:, 1], atol=1e-5)
