"""The process: what a step with the true prediction must do, for every path and basis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdm_jax import basis as bases
from gdm_jax import grouping, schedule
from gdm_jax import path as paths
from gdm_jax.process import Process
from tests.support import gaussian

pytestmark = pytest.mark.usefixtures('float64')

law = settings(deadline=None, max_examples=25, derandomize=True)
levels = st.lists(
  st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, allow_subnormal=False)),
  min_size=8,
  max_size=8,
).map(lambda values: np.reshape(values, (2, 4)))
seeds = st.integers(0, 2**32 - 1)

GRID = (3, 5)
BASES = {
  'pixel': bases.pixel(GRID),
  'cosine': bases.cosine(GRID),
  'zero blur': bases.blur(GRID, 0.9, 'zero'),
}
PROCESSES = {
  f'{path.name} {name}': Process(grouping.bands(basis, (1, 6, 10)), basis, path)
  for name, basis in BASES.items()
  for path in paths.PATHS.values()
}
every_process = pytest.mark.parametrize('process', PROCESSES.values(), ids=PROCESSES)

# The process is an argument: one program for the processes of one structure.
diffuse = jax.jit(lambda process, *args: process.diffuse(*args))
advance = jax.jit(lambda process, *args: process.advance(*args))


def data_and_noise(seed, channels=2):
  return np.random.default_rng(seed).normal(size=(2, 2, *GRID, channels))


def in_matrices(process, x, z, alpha):
  """U (a(A) U^T x + b(A) U^T z) with dense matrices (Eq. 11)."""
  u = np.asarray(gaussian.matrix(process.basis))
  a, b = gaussian.mix(process.path.name, alpha[:, process.grouping.labels.ravel()])
  flat = [v.reshape(2, len(u), -1) for v in (x, z)]
  mixed = [
    u @ (np.diag(a[i]) @ u.T @ flat[0][i] + np.diag(b[i]) @ u.T @ flat[1][i]) for i in range(2)
  ]
  return np.reshape(mixed, x.shape)


@every_process
def test_diffusion_is_the_mixture_in_the_basis(process):
  x, z = data_and_noise(0)
  alpha = np.array([[0, 0.3, 0.8, 1], [1, 0.5, 0, 0.1]])
  np.testing.assert_allclose(
    diffuse(process, x, z, alpha), in_matrices(process, x, z, alpha), atol=1e-12
  )
  np.testing.assert_allclose(diffuse(process, x, z, np.zeros((2, 4))), z, atol=1e-12)
  np.testing.assert_allclose(diffuse(process, x, z, np.ones((2, 4))), x, atol=1e-12)


@every_process
@law
@given(levels, levels, seeds)
def test_step_with_the_true_prediction_lands_on_the_path(process, alpha, next_alpha, seed):
  """The key law, towards data and towards noise: advance inverts what diffuse mixed."""
  x, z = data_and_noise(seed)
  stepped = advance(process, diffuse(process, x, z, alpha), x - z, alpha, next_alpha)
  np.testing.assert_allclose(stepped, diffuse(process, x, z, next_alpha), atol=1e-11)


@every_process
@law
@given(levels, levels, seeds)
def test_step_is_reversible_for_any_prediction(process, alpha, next_alpha, seed):
  x_t, u = data_and_noise(seed)
  back = advance(process, advance(process, x_t, u, alpha, next_alpha), u, next_alpha, alpha)
  np.testing.assert_allclose(back, x_t, atol=1e-11)


@every_process
def test_groups_whose_level_stays_keep_their_coefficients(process):
  x_t, u = data_and_noise(0)
  alpha = np.array([[0.0, 0.3, 0.6, 1.0], [1.0, 0.0, 0.6, 0.2]])
  next_alpha = np.array([[0.5, 0.3, 0.6, 1.0], [1.0, 0.0, 0.9, 0.2]])
  stepped = np.asarray(advance(process, x_t, u, alpha, next_alpha))
  stays = np.asarray(process.coefficient_map(alpha == next_alpha))
  before, after = (np.asarray(process.basis.analyze(v)) for v in (x_t, stepped))
  stays = np.broadcast_to(stays, x_t.shape)
  np.testing.assert_allclose(after[stays], before[stays], atol=1e-12)
  assert np.min(np.abs(after - before)[~stays]) > 1e-6
  if process.path is paths.linear and not process.basis.factors:
    np.testing.assert_array_equal(stepped[stays], x_t[stays])


@pytest.mark.parametrize('path', paths.PATHS.values(), ids=paths.PATHS)
def test_clean_and_untouched_pixels_are_bit_identical_in_float32(path):
  with jax.enable_x64(False):
    process = Process(grouping.columns(GRID, 4), bases.pixel(GRID), path)
    x_t, u = jnp.asarray(data_and_noise(0))
    alpha, next_alpha = jnp.array([[1.0, 1.0, 0.3, 0.0]] * 2), jnp.array([[1.0, 1.0, 0.7, 0.0]] * 2)
    stepped = advance(process, x_t, u, alpha, next_alpha)
    assert stepped.dtype == np.float32
    still = process.grouping.labels != 2
    np.testing.assert_array_equal(stepped[:, still], x_t[:, still])
    assert np.all(stepped[:, ~still] != x_t[:, ~still])


def test_linear_step_is_the_change_of_level_times_the_prediction():
  """dz = U A' U^T u dt (Eq. 17) in one step; k = 1 is Euler on rectified flow."""
  process = Process(grouping.whole(GRID), bases.cosine(GRID))
  x_t, u = data_and_noise(0)
  alpha, next_alpha = np.array([[0.2], [0.5]]), np.array([[0.3], [0.1]])
  expected = x_t + (next_alpha - alpha)[:, :, None, None] * u
  np.testing.assert_allclose(advance(process, x_t, u, alpha, next_alpha), expected, atol=1e-12)


def test_coefficient_map_spreads_the_levels_over_the_grid():
  process = Process(grouping.blocks((4, 6), (2, 3)), bases.pixel((4, 6)))
  alpha = np.random.default_rng(0).uniform(size=(5, 6))
  spread = process.coefficient_map(alpha)
  assert spread.shape == (5, 4, 6, 1)
  for i, (r, c) in enumerate([(0, 0), (0, 5), (3, 2), (2, 4), (1, 1)]):
    assert spread[i, r, c, 0] == alpha[i, 3 * (r // 2) + c // 2]


@every_process
def test_replacement_takes_the_given_coefficients(process):
  x, other = data_and_noise(0)
  groups = np.array([0, 1, 0, 1])
  mixed = process.basis.analyze(process.replace(x, other, groups))
  taken = np.broadcast_to(groups[process.grouping.labels][..., None] == 1, x.shape)
  expected = np.where(taken, process.basis.analyze(other), process.basis.analyze(x))
  np.testing.assert_allclose(mixed, expected, atol=1e-12)


@pytest.mark.parametrize('name', ['linear pixel', 'variance_preserving zero blur'])
def test_transformations_take_the_process_as_an_argument(name):
  process = PROCESSES[name]
  x, z = data_and_noise(0)
  alpha, next_alpha = np.array([[0.1, 0.3, 0.6, 0.9]] * 2), np.array([[0.2, 0.3, 0.7, 1.0]] * 2)

  def total(process, x, z, alpha):
    x_t = process.diffuse(x, z, alpha)
    return jnp.sum(jnp.sin(process.advance(x_t, jnp.cos(x_t), alpha, next_alpha)))

  compiled = jax.jit(total)
  one_by_one = [
    compiled(process, x, z, level * np.ones((2, 1)))
    for level in np.stack([alpha[0], 0.5 * alpha[0]])
  ]
  mapped = jax.vmap(compiled, (None, None, None, 0))
  together = mapped(process, x, z, np.stack([alpha, 0.5 * alpha]))
  np.testing.assert_allclose(together, one_by_one, rtol=1e-12)

  gradient = jax.jit(jax.grad(total, 1))(process, x, z, alpha)
  step = 1e-6 * z
  difference = (compiled(process, x + step, z, alpha) - compiled(process, x - step, z, alpha)) / 2
  np.testing.assert_allclose(jnp.sum(gradient * step), difference, rtol=1e-5)
  rebuilt = jax.tree.map(lambda leaf: leaf, process)
  assert rebuilt.path is process.path
  assert rebuilt.grouping.num_groups == 4


def test_misuse_is_named_with_its_value():
  with pytest.raises(ValueError, match=r'grouping of grid \(4, 6\) with a basis of grid \(6, 4\)'):
    Process(grouping.whole((4, 6)), bases.pixel((6, 4)))
  process = Process(grouping.rows((4, 6), 2), bases.pixel((4, 6)))
  with pytest.raises(ValueError, match='3 signal levels for a grouping of 2 groups'):
    process.coefficient_map(np.zeros((1, 3)))


@pytest.mark.parametrize('rho', [0.5, 1.5, 3.0])
def test_rows_are_even_in_a_power_of_the_noise_level(rho):
  process = Process(grouping.columns((1, 2), 2), bases.pixel((1, 2)))
  table = np.array(process.table(schedule.sequential((1, 0)), (2, 4), rho))
  noise = [1, 0.75, 0.5, 0.25, 0]
  np.testing.assert_allclose((1 - table[:3, 1]) ** (1 / rho), noise[::2], atol=1e-6)
  np.testing.assert_allclose((1 - table[2:, 0]) ** (1 / rho), noise, atol=1e-6)
  np.testing.assert_array_equal(table[[0, 2, 6]], [[0, 0], [0, 1], [1, 1]])
