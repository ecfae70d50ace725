"""Losses against their definitions, written out in dense matrices and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax import basis as bases
from gdm_jax import grouping, losses, schedule
from gdm_jax import path as paths
from gdm_jax.process import Process
from tests.support import gaussian

pytestmark = pytest.mark.usefixtures('float64')

GRID = (2, 4)
BASES = {'pixel': bases.pixel(GRID), 'cosine': bases.cosine(GRID)}
PROCESSES = {
  f'{path.name} {name}': Process(grouping.bands(basis, (2, 5)), basis, path)
  for name, basis in BASES.items()
  for path in paths.PATHS.values()
}
PLAN = ((2, 0, 1), (0.2, 0.7))
TIMES = np.array([0.15, 0.4, 0.65, 0.9])


@pytest.fixture(scope='module', params=PROCESSES.values(), ids=PROCESSES)
def setting(request):
  """A process, data, noise, levels and the optimal prediction of Gaussian data."""
  process, data = request.param, gaussian.mixture(8, seed=3)
  rng = np.random.default_rng(4)
  factor = np.linalg.cholesky(data.cov)
  x = (data.mean + rng.normal(size=(4, 3, 8)) @ factor.T).transpose(0, 2, 1)
  x, z = x.reshape(4, *GRID, 3), rng.normal(size=(4, *GRID, 3))
  plan = schedule.sequential(*PLAN)
  predict = jax.jit(gaussian.optimal(data, process))
  levels = schedule.coefficients(plan, TIMES), schedule.rates(plan, TIMES)
  return process, predict, x, z, *levels


def mean_square(values):
  return np.mean(np.square(values).reshape(len(values), -1), axis=1)


def in_basis(process, x):
  """U^T x with a dense matrix, [batch, d, channels]."""
  u = np.asarray(gaussian.matrix(process.basis))
  return np.einsum('ji,bjc->bic', u, np.reshape(x, (len(x), len(u), -1)))


def test_unweighted_loss_is_equation_8(setting):
  process, predict, x, z, alpha, rate = setting
  u = predict(process.diffuse(x, z, alpha), alpha)
  found = losses.loss(predict, process, x, z, alpha, rate)
  assert found.shape == (4,)
  np.testing.assert_allclose(found, mean_square(x - z - u))
  # The frequency-space error of Eq. 12 is the same number: U is orthogonal (Eq. 14 to 16).
  np.testing.assert_allclose(found, mean_square(in_basis(process, x - z - u)))


def test_velocity_loss_is_the_error_of_the_time_derivative(setting):
  """Eq. 7 for any path: d x_t / dt at fixed x and z, against that of the x^ and z^ implied by u."""
  process, predict, x, z, alpha, rate = setting
  plan = schedule.sequential(*PLAN)
  x_t = process.diffuse(x, z, alpha)
  u = predict(x_t, alpha)

  labels = process.grouping.labels.ravel()
  a, b = gaussian.mix(process.path.name, alpha[:, labels][..., None])
  implied_x = (in_basis(process, x_t) + b * in_basis(process, u)) / (a + b)
  implied_z = implied_x - in_basis(process, u)

  def velocity(x, z):
    def point(t):
      level = schedule.coefficients(plan, t)[:, labels][..., None]
      # A clean group stands still, where the derivative of b is 0 times infinity.
      a, b = gaussian.mix(process.path.name, jnp.where(level < 1, level, 0.5))
      return a * x + b * z

    return jax.jvp(point, (TIMES,), (np.ones(4),))[1]

  expected = velocity(in_basis(process, x), in_basis(process, z)) - velocity(implied_x, implied_z)
  found = losses.loss(predict, process, x, z, alpha, rate, 'velocity')
  np.testing.assert_allclose(found, mean_square(expected), rtol=1e-9)
  if process.path is paths.linear:
    naive = rate[:, labels][..., None] * in_basis(process, x - z - u)
    np.testing.assert_allclose(found, mean_square(naive))


def test_denoising_loss_is_equation_3(setting):
  process, predict, x, z, alpha, rate = setting
  x_t = process.diffuse(x, z, alpha)
  u = predict(x_t, alpha)
  a, b = gaussian.mix(process.path.name, alpha[:, process.grouping.labels.ravel()][..., None])
  implied = (in_basis(process, x_t) + b * in_basis(process, u)) / (a + b)
  found = losses.loss(predict, process, x, z, alpha, rate, 'denoising')
  np.testing.assert_allclose(found, mean_square(in_basis(process, x) - implied))


def test_active_loss_is_the_mean_over_the_groups_now_diffusing(setting):
  process, predict, x, z, alpha, rate = setting
  error = in_basis(process, x - z - predict(process.diffuse(x, z, alpha), alpha))
  found = losses.loss(predict, process, x, z, alpha, rate, 'active')
  active = [1, 0, 0, 2]  # at TIMES: (0, 0.2] is the last group's, (0.2, 0.7] the next one's
  for i, group in enumerate(active):
    there = process.grouping.labels.ravel() == group
    np.testing.assert_allclose(found[i], np.mean(error[i, there] ** 2))


@pytest.mark.parametrize('weighting', losses.WEIGHTINGS)
@pytest.mark.parametrize('path', paths.PATHS.values(), ids=paths.PATHS)
def test_losses_and_gradients_are_finite_where_nothing_moves(weighting, path):
  process = Process(grouping.columns(GRID, 2), bases.pixel(GRID), path)
  x, z = np.random.default_rng(0).normal(size=(2, 2, *GRID, 1))
  alpha, rate = np.array([[1.0, 1.0], [1.0, 0.0]]), np.zeros((2, 2))

  def total(scale):
    return jnp.sum(
      losses.loss(lambda x_t, alpha: scale * x_t, process, x, z, alpha, rate, weighting)
    )

  value, slope = jax.value_and_grad(total)(0.3)
  assert np.isfinite(value)
  assert np.isfinite(slope)
  assert (value == 0) == (weighting in ('velocity', 'active'))


def test_every_weighting_is_least_at_the_optimal_prediction():
  """Monte Carlo over x, z and t: no constant shift or scale of the optimal u improves it."""
  data, process = gaussian.mixture(8, seed=3), PROCESSES['linear cosine']
  rng = np.random.default_rng(5)
  x = data.mean + rng.normal(size=(4000, 8)) @ np.linalg.cholesky(data.cov).T
  x, z = x.reshape(-1, *GRID, 1), rng.normal(size=(4000, *GRID, 1))
  plan, t = schedule.sequential(*PLAN), rng.uniform(size=4000)
  alpha, rate = schedule.coefficients(plan, t), schedule.rates(plan, t)
  u = jax.jit(gaussian.optimal(data, process))(process.diffuse(x, z, alpha), alpha)

  for weighting in losses.WEIGHTINGS:

    def mean_loss(scale, shift, weighting=weighting):
      predict = lambda x_t, alpha: scale * u + shift  # noqa: E731
      return jnp.mean(losses.loss(predict, process, x, z, alpha, rate, weighting))

    best = mean_loss(1.0, 0.0)
    for scale, shift in [(0.7, 0.0), (1.3, 0.0), (1.0, 0.3), (1.0, -0.3)]:
      assert mean_loss(scale, shift) > best


def test_unknown_weighting_is_named_with_the_known_ones():
  x = np.zeros((1, *GRID, 1))
  with pytest.raises(
    ValueError,
    match="weighting 'snr' is unknown; there are unweighted, velocity, active, denoising",
  ):
    losses.loss(
      lambda *_: x, PROCESSES['linear pixel'], x, x, np.ones((1, 3)), np.ones((1, 3)), 'snr'
    )


def test_velocity_of_a_curved_path_is_finite_where_the_level_rounds_to_one():
  gdm = Process(grouping.whole((2,)), bases.pixel((2,)), paths.variance_preserving)
  x = jnp.ones((1, 2, 1), jnp.float32)
  alpha, rate = jnp.ones((1, 1), jnp.float32), -jnp.ones((1, 1), jnp.float32)
  value = losses.loss(lambda x_t, alpha: 0 * x_t, gdm, x, -x, alpha, rate, 'velocity')
  assert np.isfinite(value).all()
  assert value[0] > 1e5  # the weight is 1 / (b (a + b)), squared
