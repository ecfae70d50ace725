"""Solvers on Gaussian data, whose ODE has a closed form: the slope of the error is the order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax import basis as bases
from gdm_jax import grouping, sampling, schedule, solvers
from gdm_jax import path as paths
from gdm_jax.process import Process
from tests.support import gaussian
from tests.support.gaussian import CASES

pytestmark = pytest.mark.usefixtures('float64')

ORDERED = {name: s for name, s in solvers.SOLVERS.items() if s.order}
ON_GAUSSIANS = {
  'midpoint': 3,
  'multistep_midpoint': 3,
}  # as its docstring says; the others have their order
SETTINGS = {
  'two elements': ('elements 2', paths.linear),
  'blocks': ('blocks 4x4', paths.linear),
  'frequency bands': ('cosine 3x5', paths.linear),
  'curved path': ('elements 5', paths.variance_preserving),
}
DENSITIES = (2, 4, 8)  # times the steps of a case: 64 to 512 in all


@functools.partial(jax.jit, static_argnames=('solver', 'encoding'))
def run(process, data, tables, x, solver, encoding=False):
  predict = gaussian.optimal(data, process)
  walk = sampling.encode if encoding else sampling.sample

  def along(table):
    end = walk(predict, process, table, x, solver)
    return end.x if isinstance(end, solvers.ReversiblePair) else end

  return jax.lax.map(along, tables)


def setting(name, components=1):
  case, path = SETTINGS[name]
  case = CASES[case].over(path)
  data = gaussian.mixture(int(np.prod(case.shape)), components, seed=components // 2)
  return case, path, data, np.random.default_rng(0).normal(size=(4, *case.shape, 1))


def dense_tables(case):
  tables = [case.process.path.level(case.table(times)) for times in DENSITIES]
  return np.stack([gaussian.pad(table, len(tables[-1])) for table in tables])


def slope(ends, exact):
  errors = [np.sqrt(np.mean((end - exact) ** 2)) for end in ends]
  return -np.polyfit(np.log(DENSITIES), np.log(errors), 1)[0]


@pytest.mark.parametrize('direction', ['towards data', 'towards noise'])
@pytest.mark.parametrize('where', SETTINGS)
@pytest.mark.parametrize('name', ORDERED)
def test_error_on_a_gaussian_falls_with_the_order_across_boundaries(name, where, direction):
  case, _, data, z = setting(where)
  x = gaussian.transport(data, case.process, case.order, z)
  start, end, encoding = (z, x, False) if direction == 'towards data' else (x, z, True)
  ends = run(case.process, data, dense_tables(case), start, name, encoding)
  assert abs(slope(ends, end) - ON_GAUSSIANS.get(name, ORDERED[name].order)) < 0.2


@pytest.mark.parametrize('where', ['two elements', 'curved path'])
@pytest.mark.parametrize('name', ORDERED)
def test_error_on_a_mixture_falls_with_the_order_across_boundaries(name, where):
  case, path, data, z = setting(where, components=3)
  boundaries = schedule.table(schedule.sequential(case.order, case.cuts), len(case.order))
  exact = run(case.process, data, path.level(boundaries)[None], z, solvers.adaptive(1e-13, 1e-13))
  ends = run(case.process, data, dense_tables(case), z, name)
  assert abs(slope(ends, exact[0]) - ORDERED[name].order) < 0.2


@pytest.mark.parametrize('where', SETTINGS)
def test_adaptive_solver_is_exact_from_boundary_to_boundary(where):
  case, path, data, z = setting(where)
  x = gaussian.transport(data, case.process, case.order, z)
  boundaries = schedule.table(schedule.sequential(case.order, case.cuts), len(case.order))
  solver = solvers.adaptive(1e-9, 1e-9)
  table = path.level(boundaries)[None]
  np.testing.assert_allclose(run(case.process, data, table, z, solver)[0], x, atol=1e-7)
  np.testing.assert_allclose(run(case.process, data, table, x, solver, True)[0], z, atol=1e-7)


def test_adaptive_solver_ends_where_the_prediction_is_not_finite():
  case, _, _, z = setting('two elements')
  table = schedule.table(schedule.sequential(case.order, case.cuts), len(case.order))

  def broken_when_half_known(x_t, alpha):
    return jnp.where(alpha.mean() > 0.4, jnp.nan, x_t)

  x = sampling.sample(broken_when_half_known, case.process, table, z, 'adaptive')
  assert np.isnan(x).all()


def cosine(x_t, alpha):
  """Some prediction that is not linear."""
  return jnp.cos(3 * x_t) + alpha.mean(-1).reshape(-1, *[1] * (x_t.ndim - 1))


@pytest.mark.parametrize('steps', [3, 4, 7, 64, 500])
@pytest.mark.parametrize('path', paths.PATHS.values(), ids=paths.PATHS)
def test_reversible_solver_retraces_its_steps(path, steps):
  with jax.enable_x64(False):
    process = Process(grouping.columns((3, 6), 3), bases.cosine((3, 6)), path)
    table = path.level(schedule.table(schedule.sequential((1, 2, 0)), steps))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 6, 2)), jnp.float32)
    latent = sampling.encode(cosine, process, table, x, 'reversible_heun')
    back = sampling.sample(cosine, process, table, latent, 'reversible_heun')
    assert back.dtype == jnp.float32
    np.testing.assert_allclose(back, x, atol=1e-4)
    # It is the companion that makes it exact.
    if steps < 10:
      alone = sampling.sample(cosine, process, table, latent.x, 'reversible_heun')
      assert np.max(np.abs(alone - x)) > 1e-2


def walked(solver, table, x=1.0):
  """The levels and points at which a solver evaluates, and where it ends."""
  seen = []

  def predict(x_t, alpha):
    seen.append((alpha[0].tolist(), float(x_t[0, 0, 0])))
    return 2 * x_t

  k = np.shape(table)[-1]
  process = Process(grouping.elements((k,)), bases.pixel((k,)))
  with jax.disable_jit():
    end = sampling.sample(predict, process, jnp.asarray(table), jnp.full((1, k, 1), x), solver)
  return seen, end[0, :, 0].tolist()


def test_runge_kutta_evaluates_at_its_nodes():
  table = [[0.25], [0.75]]
  assert walked('euler', table) == ([([0.25], 1.0)], [2.0])
  assert walked('midpoint', table) == ([([0.25], 1.0), ([0.5], 1.5)], [2.5])
  assert walked('heun', table) == ([([0.25], 1.0), ([0.75], 2.0)], [2.5])
  seen, end = walked('rk4', table)
  assert seen == [([0.25], 1.0), ([0.5], 1.5), ([0.5], 1.75), ([0.75], 2.75)]
  assert end[0] == pytest.approx(1 + (2 + 6 + 7 + 5.5) / 12)


def test_adams_bashforth_extrapolates_over_uneven_steps_and_restarts_at_a_boundary():
  seen, end = walked('adams_bashforth2', [[0, 0], [0.5, 0], [0.75, 0], [0.75, 0.5]])
  first = 1 + 0.5 * 2
  second = first + 0.25 * (4 + (4 - 2) * 0.5 / 2)
  assert [point for _, point in seen] == [1, first, second]
  assert end == pytest.approx([second, 1 + 0.5 * 2])


def test_multistep_midpoint_carries_predictions_over_a_boundary():
  seen, end = walked('multistep_midpoint', [[0, 0], [0.5, 0], [1, 0], [1, 0.5]])
  at_0 = 2  # the prediction 2 x_t at x = 1
  middle = 1 + 0.25 * at_0
  first = 1 + 0.5 * 2 * middle
  slope = 2 * middle + (2 * middle - at_0)  # on to the row, which is as far again
  second_middle = first + 0.25 * slope
  second = first + 0.5 * 2 * second_middle
  # The other group moves by what was predicted of it, 2, and the first one stays.
  assert [level for level, _ in seen] == [[0, 0], [0.25, 0], [0.75, 0], [1, 0.25]]
  assert [point for _, point in seen] == pytest.approx([1, middle, second_middle, second])
  assert end == pytest.approx([second, 1 + 0.5 * 2 * (1 + 0.25 * 2)])


def test_a_row_repeated_changes_nothing():
  plain, padded = [[0], [0.5], [1]], [[0], [0], [0.5], [1], [1]]
  for name in {*ORDERED} - {'reversible_heun'}:  # whose companion swaps sides
    assert walked(name, plain)[1] == pytest.approx(walked(name, padded)[1]), name


def test_every_solver_says_what_it_costs():
  for name, solver in ORDERED.items():
    seen, _ = walked(name, [[0], [0.5], [1]])
    assert len(seen) == 2 * solver.evaluations + solver.first_evaluations


def test_a_program_holds_the_network_once_whatever_the_stages():
  process = Process(grouping.whole((3,)), bases.pixel((3,)))

  def text(solver):
    table = np.linspace(0, 1, 5)[:, None]
    run = jax.jit(lambda z: sampling.sample(cosine, process, table, z, solver))
    return run.lower(jnp.ones((2, 3, 1))).as_text().count('stablehlo.cosine')

  assert {name: text(name) for name in ORDERED} == {
    **dict.fromkeys(ORDERED, 1),
    **dict.fromkeys(('reversible_heun', 'multistep_midpoint'), 2),  # and once to start
  }


def test_unknown_solver_is_named_with_the_known_ones(monkeypatch):
  with pytest.raises(ValueError, match="solver 'rk45' is unknown; there are adams_bashforth2, "):
    solvers.get_solver('rk45')
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(ValueError, match="solver 'adaptive' needs diffrax: pip install diffrax"):
    solvers.get_solver('adaptive')
  assert solvers.get_solver(solvers.heun) is solvers.heun is solvers.get_solver('heun')
