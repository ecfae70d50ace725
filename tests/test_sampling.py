"""Sampling against closed forms: N(0, I) to the data and back, and the paper's propositions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax import basis as bases
from gdm_jax import grouping, sampling, schedule
from gdm_jax import path as paths
from gdm_jax.process import Process
from tests.support import gaussian
from tests.support.gaussian import CASES, Case, coarse_and_fine, data_of, largest, nonlinear, random

pytestmark = pytest.mark.usefixtures('float64')

RATIO = {'euler': 0.5, 'heun': 0.25}  # of the error, where the steps are doubled


@functools.partial(
  jax.jit,
  static_argnames='solver',
  compiler_options={'xla_backend_optimization_level': '0'},  # small programs: compiling is the cost
)
def there_and_back(process, data, tables, z, solver):
  predict = gaussian.optimal(data, process)

  def walk(table):
    x = sampling.sample(predict, process, table, z, solver)
    return x, sampling.encode(predict, process, table, x, solver)

  return jax.lax.map(walk, tables)


def moment_error(images, data):
  offset, linear = gaussian.affine(images)
  return np.concatenate([offset - data.mean, (linear @ linear.T - data.cov).ravel()])


def sample_and_encode(case, solver):
  data, z = data_of(case), gaussian.probes(case.shape)
  x, back = there_and_back(case.process, data, coarse_and_fine(case), z, solver)
  return data, z, np.asarray(x), np.asarray(back)


@pytest.mark.parametrize('name', CASES)
def test_noise_becomes_the_data_and_data_noise(name):
  case = CASES[name]
  data, z, x, back = sample_and_encode(case, 'heun')

  coarse, fine = (moment_error(images, data) for images in x)
  assert largest(coarse) < 2e-3
  assert 0.15 < largest(fine) / largest(coarse) < 0.35
  assert largest(4 * fine - coarse) / 3 < 0.2 * largest(coarse)  # Richardson: the limit is exact

  # Heun is its own inverse up to one order more than it has.
  assert largest(back[0] - z) < 2e-3
  assert largest(back[1] - z) < 0.15 * largest(back[0] - z)

  # Proposition 3.3: no group depends on the latents of those generated later, but on earlier ones.
  u = gaussian.matrix(case.process.basis)
  linear = u.T @ gaussian.affine(x[0])[1] @ u
  labels = case.process.grouping.labels.ravel()
  for i, group in enumerate(case.order):
    later, earlier = np.isin(labels, case.order[i + 1 :]), np.isin(labels, case.order[:i])
    assert not later.any() or largest(linear[labels == group][:, later]) < 1e-9
    assert not earlier.any() or largest(linear[labels == group][:, earlier]) > 1e-2


@pytest.mark.parametrize('name', ['columns 3x5', 'elements 5', 'blur 4x4'])
def test_euler_converges_at_order_one(name):
  data, z, x, back = sample_and_encode(CASES[name], 'euler')
  coarse, fine = (moment_error(images, data) for images in x)
  assert 0.45 < largest(fine) / largest(coarse) < 0.56
  assert largest(2 * fine - coarse) < 0.1 * largest(coarse)
  assert 0.45 < largest(back[1] - z) / largest(back[0] - z) < 0.56


@pytest.mark.parametrize('solver', ['euler', 'heun'])
@pytest.mark.parametrize('name', ['elements 5', 'cosine 3x5'])
def test_variance_preserving_path_converges(name, solver):
  # Steps that are even in alpha are uneven in a / (a + b), by a square root as alpha nears 1;
  # that costs Euler a logarithm and Heun half an order, hence wider bounds.
  data, z, x, back = sample_and_encode(CASES[name].over(paths.variance_preserving), solver)
  coarse, fine = (moment_error(images, data) for images in x)
  assert largest(coarse) < (0.5 if solver == 'euler' else 0.1)
  assert largest(fine) < (RATIO[solver] + 0.2) * largest(coarse)
  assert largest(back[1] - z) < (RATIO[solver] + 0.2) * largest(back[0] - z)


@pytest.mark.parametrize('name', ['rows 4x4', 'cascade 5', 'zero blur 3x5'])
def test_variance_preserving_path_is_the_linear_one_on_other_levels(name):
  # x_t / (a + b) moves on the linear path of level a / (a + b), so equal tables give equal data.
  case = CASES[name]
  table = np.asarray(case.table())
  warped = table / np.hypot(table, 1 - table)
  z = gaussian.probes(case.shape)
  linear, curved = (
    there_and_back(c.process, data_of(case), levels[None], z, 'euler')
    for c, levels in [(case, table), (case.over(paths.variance_preserving), warped)]
  )
  np.testing.assert_allclose(curved[0], linear[0], atol=1e-10)
  np.testing.assert_allclose(curved[1], linear[1], atol=1e-9)


@pytest.mark.parametrize('path', [paths.linear, paths.variance_preserving], ids=lambda p: p.name)
@pytest.mark.parametrize(
  ('name', 'overlap'), [('rows 4x4', 0.5), ('elements 5', 0.2), ('blur 4x4', 0.9), ('whole 2', 1.0)]
)
def test_any_overlap_carries_noise_to_the_data_and_back(name, overlap, path):
  case = CASES[name].over(path)
  data, z = data_of(case), gaussian.probes(case.shape)
  plan = schedule.overlapping(case.order, overlap, case.cuts)
  shares = np.array(schedule.equal_shares(plan, 48))
  tables = [np.asarray(case.process.table(plan, (times * shares).tolist())) for times in (1, 2)]
  tables = np.stack([gaussian.pad(tables[0], len(tables[1])), tables[1]])
  x, back = there_and_back(case.process, data, tables, z, 'heun')
  coarse, fine = (moment_error(images, data) for images in x)
  assert largest(coarse) < 5e-3
  assert 0.15 < largest(fine) / largest(coarse) < 0.35
  assert largest(4 * fine - coarse) / 3 < 0.2 * largest(coarse)
  assert largest(back[1] - z) < 0.2 * largest(back[0] - z) < 1e-3


def test_full_overlap_is_the_path_of_one_group():
  case = CASES['blocks 4x4']
  table = schedule.table(schedule.overlapping(case.order, 1.0, case.cuts), 32)
  np.testing.assert_array_equal(table, np.repeat(CASES['whole 4x4'].table(), 4, axis=1))


@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
def test_mixture_of_gaussians_element_by_element(order):
  """A non-linear map: densities by the change of variables, the first element by quantiles."""
  data = gaussian.mixture(2, n=3, seed=1)
  process = Process(grouping.elements((2,)), bases.pixel((2,)))
  case = Case(process, order, None, (16, 24))
  points = np.random.default_rng(0).normal(size=(12, 2))

  @jax.jit
  def density_error(table):
    def generate(z):
      predict = gaussian.optimal(data, process)
      return sampling.sample(predict, process, table, z[None, :, None], 'heun').reshape(2)

    def one(z):
      x, jacobian = generate(z), jax.jacfwd(generate)(z)
      log_det = jnp.linalg.slogdet(jacobian)[1]
      return x, jacobian, data.log_density(x) + log_det - jnp.sum(_log_normal(z))

    return jax.vmap(one)(points)

  coarse, fine = (density_error(table) for table in coarse_and_fine(case))
  assert largest(coarse[2]) < 0.02
  assert largest(fine[2]) < 0.35 * largest(coarse[2])
  first, second = order
  assert largest(fine[1][:, first, second]) < 1e-9  # Proposition 3.3
  levels = [
    gaussian.quantile_level(data, first, np.asarray(x[0])[:, first]) for x in (coarse, fine)
  ]
  wanted = gaussian.norm.cdf(points[:, first])
  assert largest(levels[0] - wanted) < 2e-3
  assert largest(levels[1] - wanted) < 0.35 * largest(levels[0] - wanted)


def _log_normal(z):
  return -(z**2) / 2 - np.log(2 * np.pi) / 2


@pytest.mark.parametrize('path', paths.PATHS.values(), ids=paths.PATHS)
def test_autoregression_gives_conditional_means(path):
  """Proposition 3.1: k = d with one step each; every element is its mean given those before."""
  data, order = gaussian.mixture(4, n=3, seed=2), (2, 0, 3, 1)
  process = Process(grouping.elements((2, 2)), bases.pixel((2, 2)), path)
  table = schedule.table(schedule.sequential(order), 4)
  z = np.random.default_rng(0).normal(size=(3, 2, 2, 1))
  x = np.asarray(sampling.sample(gaussian.optimal(data, process), process, table, z))

  expected = np.zeros(4)
  for i, position in enumerate(order):
    known = np.array(order[:i], int)
    expected[position] = gaussian.conditional_mean(data, known, expected[known], position)
  np.testing.assert_allclose(x.reshape(3, 4), np.tile(expected, (3, 1)), atol=1e-12)


def test_cascade_generates_the_coarse_lattice_first():
  """Proposition 3.2: after the first group's steps, the lattice is final and its marginal's."""
  case = CASES['cascade 4x4']
  data, process, table = data_of(case), case.process, case.table()
  z = gaussian.probes(case.shape)

  @jax.jit
  def states(z):
    return sampling.trajectory(gaussian.optimal(data, process), process, table, z, 'heun')

  states = np.asarray(states(z))
  assert states.shape == (sum(case.steps) + 1, *z.shape)
  np.testing.assert_array_equal(states[0], z)
  after = states[case.steps[0]]
  np.testing.assert_array_equal(after[:, ::2, ::2], states[-1][:, ::2, ::2])
  fine = np.asarray(process.grouping.labels) == 1
  np.testing.assert_array_equal(after[:, fine], z[:, fine])

  lattice = np.flatnonzero(~fine.ravel())
  offset, linear = gaussian.affine(after)
  np.testing.assert_allclose(offset[lattice], data.mean[lattice], atol=1e-3)
  covariance = linear[lattice] @ linear[lattice].T
  np.testing.assert_allclose(covariance, data.cov[np.ix_(lattice, lattice)], atol=1e-3)


@pytest.mark.parametrize(('solver', 'per_step'), [('euler', 1), ('heun', 2)])
def test_evaluations_are_one_per_step_and_order(solver, per_step):
  process = Process(grouping.columns((2, 3), 3), bases.pixel((2, 3)))
  table, z = jnp.asarray(np.tri(4, 3, -1)), random(0, 1, 2, 3, 1)
  seen = []

  def predict(x_t, alpha):
    assert alpha.shape == (1, 3)
    seen.append(alpha)
    return x_t

  with jax.disable_jit():
    sampling.sample(predict, process, table, z, solver)
    assert len(seen) == 3 * per_step
    seen.clear()
    sampling.complete(predict, process, table, z, [0], z, solver)  # only the rows that are left
    assert len(seen) == 2 * per_step


def test_program_is_independent_of_the_number_of_steps_and_tables():
  process, z = Process(grouping.columns((2, 3), 3), bases.pixel((2, 3))), random(0, 1, 2, 3, 1)
  traces = []

  def predict(x_t, alpha):
    traces.append(alpha.shape)
    return nonlinear(x_t, alpha)

  run = jax.jit(lambda tables: sampling.sweep(predict, process, tables, z))
  counts = []
  for m, steps in [(2, 3), (5, 3), (2, 30)]:
    tables = np.stack([gaussian.pad(np.tri(4, 3, -1), steps + 1)] * m)
    before = len(traces)
    run(tables)
    counts.append(len(traces) - before)
    run(tables[:, :, ::-1])  # other orders, no new program
    assert len(traces) == before + counts[-1]
  assert counts == [1, 1, 1]


def test_sweep_is_the_loop_of_sample():
  process = Process(grouping.columns((2, 3), 3), bases.pixel((2, 3)))
  orders, z = [(0, 1, 2), (2, 1, 0), (1, 0, 2)], random(0, 2, 2, 3, 1)
  tables = jnp.stack([schedule.table(schedule.sequential(order), 9) for order in orders])
  swept = sampling.sweep(nonlinear, process, tables, z, 'heun')
  sample = jax.jit(lambda table: sampling.sample(nonlinear, process, table, z, 'heun'))
  np.testing.assert_allclose(swept, [sample(table) for table in tables], atol=1e-12)
  assert largest(swept[0] - swept[1]) > 1e-2  # the order matters to this prediction


def test_trajectory_ends_in_the_sample_and_moves_one_group_at_a_time():
  process = Process(grouping.columns((2, 3), 3), bases.pixel((2, 3)))
  table, z = schedule.table(schedule.sequential((2, 0, 1)), 9), random(0, 2, 2, 3, 1)
  states = sampling.trajectory(nonlinear, process, table, z)
  np.testing.assert_array_equal(states[0], z)
  np.testing.assert_allclose(states[-1], sampling.sample(nonlinear, process, table, z), atol=1e-12)
  moved = np.abs(np.diff(states, axis=0)).max(axis=(1, 2, 4)) > 0
  np.testing.assert_array_equal(moved, np.repeat(np.eye(3, dtype=bool)[[2, 0, 1]], 3, axis=0))


def test_one_group_is_rectified_flow():
  """k = 1 on the linear path: dz = u dt with t = 1 - alpha (Eq. 2, 5)."""
  process = Process(grouping.whole((3,)), bases.pixel((3,)))
  table, z = schedule.table(schedule.sequential([0]), 8), random(0, 2, 3, 1)
  x = sampling.sample(nonlinear, process, table, z)
  expected = z
  for i in range(8):
    expected = expected + nonlinear(expected, jnp.full((2, 1), i / 8)) / 8
  np.testing.assert_allclose(x, expected, atol=1e-12)


def test_latents_do_not_depend_on_the_batch():
  seeds = np.arange(5, dtype=np.uint32)
  latents = sampling.latents(seeds, (4, 3, 2))
  assert latents.shape == (5, 4, 3, 2)
  np.testing.assert_array_equal(latents[::-1], sampling.latents(seeds[::-1], (4, 3, 2)))
  assert largest(latents[0] - latents[1]) > 0.1


def test_gradients_flow_to_the_latents():
  process = Process(grouping.columns((2, 3), 3), bases.pixel((2, 3)))
  table, z = jnp.asarray(np.tri(4, 3, -1)), random(0, 1, 2, 3, 1)

  @jax.jit
  def total(z):
    return jnp.sum(sampling.sample(nonlinear, process, table, z))

  direction, step = random(1, *z.shape), 1e-6
  difference = (total(z + step * direction) - total(z - step * direction)) / (2 * step)
  np.testing.assert_allclose(jnp.sum(jax.grad(total)(z) * direction), difference, rtol=1e-6)
