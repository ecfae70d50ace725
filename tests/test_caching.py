"""Walks with a cache equal the plain ones, for every way to generate and any parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax import basis, caching, grouping, likelihood, sampling, schedule
from gdm_jax.process import Process
from tests.support import causal
from tests.support.gaussian import CASES

pytestmark = pytest.mark.usefixtures('float64')

# Small programs: compiling is the cost.
quick = functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': '0'})
COSINE = basis.cosine((4, 4))


def pixels(groups):
  return Process(groups, basis.pixel(groups.shape))


PROCESSES = {
  'rows of unequal height': pixels(grouping.rows((5, 4), 3)),
  'blocks': pixels(grouping.blocks((4, 4), (2, 2))),
  'lattices': pixels(grouping.cascade((4, 4), 3)),
  'bands': Process(grouping.bands(COSINE, (2, 7)), COSINE),
  'elements': pixels(grouping.elements((2, 3))),
  'channels': pixels(grouping.channels((2, 2), 2)),
  'a signal': pixels(grouping.rows((9,), 4)),
  'a volume': pixels(grouping.blocks((2, 4, 2), (1, 2, 2))),
}


def noise(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def model(process, channels=1, patch=1, **options):
  found = causal.predictor(process, channels, patch, dtype=jnp.float64, **options)
  return found, causal.random_params(found, dtype=jnp.float64)


def random_table(process, steps=None, seed=1):
  k = process.grouping.num_groups
  order = np.random.default_rng(seed).permutation(k)
  return np.asarray(process.table(schedule.sequential(order), steps or [2, 3, 1, 2, 2, 1][:k]))


def plan_of(predictor, table, chunk=None):
  return caching.plan(table, predictor.network.tokens.groups, chunk)


@pytest.mark.parametrize(
  ('name', 'solver'),
  [
    *((name, 'adams_bashforth2') for name in PROCESSES),
    ('rows of unequal height', 'midpoint'),
    ('bands', 'euler'),
  ],
)
def test_data_and_latents_are_those_of_the_plain_walk(name, solver):
  process = PROCESSES[name]
  channels = 2 if name in ('channels', 'blocks') else 1
  predictor, params = model(process, channels, patch=2 if name == 'blocks' else 1)
  table, z = random_table(process), noise(2, *process.grouping.shape, channels)
  chunk = 2 if name == 'blocks' else None  # intervals in two parts

  @quick
  def both(params, plan):
    plain, cached = predictor.bind(params), predictor.bind_cached(params)
    x = sampling.sample(plain, process, table, z, solver)
    return (
      (x, caching.sample(cached, process, plan, z, solver)),
      (
        sampling.encode(plain, process, table, x, solver),
        caching.encode(cached, process, plan, x, solver),
      ),
    )

  for plain, cached in both(params, plan_of(predictor, table, chunk)):
    assert np.abs(plain - z).max() > 0.1
    np.testing.assert_allclose(cached, plain, atol=1e-10)


def test_labels_and_guidance():
  process = PROCESSES['blocks']
  predictor, params = model(process, num_classes=3)
  table, z, label = random_table(process), noise(2, 4, 4, 1), jnp.array([2, 0])
  plan = plan_of(predictor, table)

  @functools.partial(quick, static_argnums=1)
  def both(params, guidance):
    guidance = np.array(guidance) if isinstance(guidance, tuple) else guidance
    plain = predictor.bind(params, label, guidance)
    cached = predictor.bind_cached(params, label, guidance)
    return (
      sampling.sample(plain, process, table, z),
      caching.sample(cached, process, plan, z),
    )

  found = {guidance: both(params, guidance) for guidance in (1.0, (1.0, 2.5, 0.0, 1.0))}
  for plain, cached in found.values():
    np.testing.assert_allclose(cached, plain, atol=1e-10)
  a, b = (plain for plain, _ in found.values())
  assert np.abs(a - b).max() > 1e-3


def test_known_groups_are_context_from_the_first_row_on():
  process = PROCESSES['bands']
  predictor, params = model(process)
  table = np.asarray(process.table(schedule.sequential((1, 0, 2)), [2, 2, 3]))
  known, z = noise(2, 4, 4, 1), noise(2, 4, 4, 1, seed=1)
  plain = quick(
    lambda z: sampling.complete(predictor.bind(params), process, table, known, (1,), z)
  )(z)
  rest = sampling.remaining(table, (1,))
  plan = plan_of(predictor, rest)
  assert plan.given == np.count_nonzero(predictor.network.tokens.groups == 1)
  start = sampling.given(process, known, (1,), z)
  cached = quick(lambda y: caching.sample(predictor.bind_cached(params), process, plan, y))(start)
  np.testing.assert_allclose(cached, plain, atol=1e-10)


@pytest.mark.parametrize('probes', [None, 2])
def test_likelihood_of_every_group(probes):
  process = PROCESSES['lattices']
  predictor, params = model(process)
  table, x = random_table(process), noise(2, 4, 4, 1)
  directions = likelihood.rademacher(np.arange(2), probes, (4, 4, 1)) if probes else None
  plan = plan_of(predictor, table)

  @quick
  def both(params):
    plain, cached = predictor.bind(params), predictor.bind_cached(params)
    return (
      likelihood.log_likelihood(plain, process, table, x, directions, 'midpoint'),
      caching.log_likelihood(cached, process, plan, x, directions, 'midpoint'),
    )

  plain, cached = both(params)
  np.testing.assert_allclose(cached, plain, atol=1e-10)


def test_generated_groups_depend_on_no_later_latent_bit_for_bit():
  process = PROCESSES['blocks']
  predictor, params = model(process)
  table = np.asarray(process.table(schedule.sequential((2, 0, 3, 1)), 8))
  plan, z = plan_of(predictor, table), noise(1, 4, 4, 1)
  walk = quick(lambda z: caching.sample(predictor.bind_cached(params), process, plan, z))
  later = process.coefficient_map(np.isin(np.arange(4), (3, 1)))
  a, b = walk(z), walk(jnp.where(later, -z, z))
  np.testing.assert_array_equal(np.where(later, 0, a), np.where(later, 0, b))
  assert np.abs(np.where(later, a - b, 0)).max() > 0.1


def test_many_orders_are_one_program():
  process = PROCESSES['lattices']  # of unequal groups, which are padded
  predictor, params = model(process)
  orders = [np.random.default_rng(i).permutation(3) for i in range(100)]
  tables = [np.asarray(process.table(schedule.sequential(order), 6)) for order in orders]
  z = noise(2, 4, 4, 1)

  @quick
  def sweep(plans):
    cached = predictor.bind_cached(params)
    return jax.vmap(lambda plan: caching.sample(cached, process, plan, z))(plans)

  plans = [
    caching.plans(part, predictor.network.tokens.groups) for part in (tables[:50], tables[50:])
  ]
  x = np.concatenate([sweep(plan) for plan in plans])
  assert sweep._cache_size() == 1
  plain = quick(lambda t: sampling.sweep(predictor.bind(params), process, t, z))(
    jnp.asarray(tables[:6])
  )
  np.testing.assert_allclose(x[:6], plain, atol=1e-10)


def test_a_plan_of_groups_that_overlap_is_refused():
  predictor, _ = model(PROCESSES['blocks'])
  overlapping = schedule.Schedule(
    jnp.array([0.5, 0.25, 0.0, 0.0]), jnp.array([1.0, 0.75, 0.25, 0.25])
  )
  table = np.asarray(schedule.table(overlapping, 16))
  with pytest.raises(ValueError, match='groups overlap in time'):
    plan_of(predictor, table)
  together = schedule.Schedule(jnp.array([0.5, 0.5, 0.0, 0.0]), jnp.array([1.0, 1.0, 0.5, 0.5]))
  plan = plan_of(predictor, np.asarray(schedule.table(together, 4)))
  assert [segment.ids.shape for segment in plan.segments] == [(1, 8), (1, 8)]


def test_rows_that_change_nothing_are_no_steps():
  process = PROCESSES['blocks']
  predictor, params = model(process)
  table, z = random_table(process), noise(1, 4, 4, 1)
  repeated = np.concatenate([table[:1], table[:3], table[2:], table[-1:]])
  plans = [plan_of(predictor, each) for each in (table, repeated)]
  for a, b in zip(*map(jax.tree.leaves, plans), strict=True):
    np.testing.assert_array_equal(a, b)
  nothing = plan_of(predictor, table[-1:])
  assert nothing.segments == ()
  assert nothing.given == 16
  cached = predictor.bind_cached(params)
  np.testing.assert_array_equal(caching.sample(cached, process, nothing, z), z)


def test_tables_of_other_steps_are_no_sweep():
  process = PROCESSES['blocks']
  predictor, _ = model(process)
  tables = [process.table(schedule.sequential(range(4)), steps) for steps in (8, 12)]
  with pytest.raises(ValueError, match='2 tables must not differ'):
    caching.plans(tables, predictor.network.tokens.groups)


@pytest.mark.parametrize('solver', ['reversible_heun', 'multistep_midpoint'])
def test_a_solver_that_needs_whole_examples_is_refused(solver):
  with pytest.raises(ValueError, match=f"solver '{solver}' also uses predictions of groups"):
    caching.to_data(PROCESSES['blocks'], solver)


@pytest.mark.parametrize('chunk', [None, 1, 2, 3, 5])
def test_segments_cover_the_table_in_order(chunk):
  case = CASES['cascade 5']
  process = case.process
  predictor, _ = model(process)
  table = case.table()
  plan = plan_of(predictor, table, chunk)
  rows = [row for segment in plan.segments for part in segment.rows for row in part[1:]]
  np.testing.assert_array_equal(rows, table[1:])
  if chunk:
    assert max(
      segment.rows.shape[0] * (segment.rows.shape[1] - 1) for segment in plan.segments
    ) <= (chunk)
