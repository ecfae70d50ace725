"""Schedules and their tables: Eq. 10, 20, 21, and the shares of steps in exact fractions."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdm_jax import grouping, schedule
from gdm_jax.schedule import Schedule, Strategy

pytestmark = pytest.mark.usefixtures('float64')

law = settings(deadline=None, max_examples=20, derandomize=True)
times = st.floats(0, 1, allow_subnormal=False)  # XLA flushes subnormal numbers


def weights_and_order(k):
  weights = st.lists(st.integers(1, 20), min_size=k, max_size=k)
  return st.tuples(weights, st.permutations(range(k)))


def cuts_of(weights):
  """Interior boundaries of intervals that are as long as the weights, in time."""
  return tuple(float(Fraction(n, sum(weights))) for n in np.cumsum(weights)[:-1])


def steps_of(table, order):
  """Steps in which each group moves, in generation order."""
  return [int(n) for n in (np.diff(table, axis=0) != 0).sum(0)[list(order)]]


def assert_table(table, order, counts):
  """The table of groups generated one after another in even steps: the definition, in a loop."""
  expected = [np.zeros(len(order))]
  for group, count in zip(order, counts, strict=True):
    for i in range(1, count + 1):
      row = expected[-1].copy()
      row[group] = i / count
      expected.append(row)
  np.testing.assert_allclose(table, expected, atol=1e-9)
  # Boundaries are rows exactly: at no row are two groups under way.
  assert np.all(((table > 0) & (table < 1)).sum(axis=1) <= 1)
  assert np.all(table[0] == 0)
  assert np.all(table[-1] == 1)


@pytest.mark.parametrize('k', [1, 2, 5])
@law
@given(data=st.data())
def test_intervals_tile_time_in_the_order_of_generation(k, data):
  weights, order = data.draw(weights_and_order(k))
  plan = schedule.sequential(order, cuts_of(weights))
  starts, ends = np.array(plan.start)[order], np.array(plan.end)[order]
  np.testing.assert_array_equal(ends, [1, *starts[:-1]])
  assert starts[-1] == 0
  np.testing.assert_allclose(ends - starts, weights[::-1] / np.sum(weights))


@pytest.mark.parametrize('k', [1, 2, 5])
@law
@given(data=st.data())
def test_coefficients_and_rates_are_equation_10(k, data):
  weights, order = data.draw(weights_and_order(k))
  plan = schedule.sequential(order, cuts_of(weights))
  t = np.array(data.draw(st.lists(times, min_size=3, max_size=3)))
  alpha, rate = np.array(schedule.coefficients(plan, t)), np.array(schedule.rates(plan, t))
  assert alpha.shape == rate.shape == (3, k)
  starts, ends = np.array(plan.start), np.array(plan.end)
  for i, j in np.ndindex(3, k):
    start, end = starts[j], ends[j]
    np.testing.assert_allclose(alpha[i, j], np.clip((end - t[i]) / (end - start), 0, 1))
    moving = start < t[i] <= end
    np.testing.assert_allclose(rate[i, j], -1 / (end - start) if moving else 0)
  if np.all(t > 0):
    assert np.all((rate != 0).sum(axis=1) == 1)


def test_rates_are_the_derivatives_of_the_coefficients():
  plan, t = schedule.sequential((1, 2, 0), (0.3, 0.8)), np.array([0.1, 0.5, 0.9])
  derivative = jax.jvp(lambda t: schedule.coefficients(plan, t), (t,), (np.ones(3),))[1]
  np.testing.assert_allclose(schedule.rates(plan, t), derivative)


def test_one_group_is_rectified_flow():
  t = np.linspace(0, 1, 11)
  plan = schedule.sequential([0])
  np.testing.assert_array_equal(schedule.coefficients(plan, t), 1 - t[:, None])
  np.testing.assert_array_equal(schedule.rates(plan, t[1:]), -np.ones((10, 1)))


@pytest.mark.parametrize('wide', [False, True], ids=['float32', 'float64'])
def test_autoregression_is_exact_at_every_multiple_of_one_over_d(wide):
  """Eq. 20 and 21 for all d and l: the paper's element j is the one generated (d - j + 1)-th."""
  with jax.enable_x64(wide):
    kind = np.float64 if wide else np.float32
    for_t = jax.jit(lambda plan, t: (schedule.coefficients(plan, t), schedule.rates(plan, t)))
    for d in range(1, 65):
      plan = schedule.sequential(np.arange(d)[::-1])
      assert plan.start.dtype == kind
      np.testing.assert_array_equal(plan.start, (np.arange(d) / d).astype(kind))
      np.testing.assert_array_equal(plan.end, (np.arange(1, d + 1) / d).astype(kind))
      # Padded to one shape, so that one program serves every d.
      padded = Schedule(*(np.resize(np.asarray(v), 64) for v in (plan.start, plan.end)))
      t = np.resize((np.arange(1, d + 1) / d).astype(kind), 64)
      alpha, rate = (np.asarray(v)[:d, :d] for v in for_t(padded, t))
      moment, element = np.mgrid[1 : d + 1, 1 : d + 1]
      np.testing.assert_array_equal(alpha, element > moment)
      np.testing.assert_array_equal(rate != 0, element == moment)
      # The length of an interval carries the rounding of its ends, d times magnified.
      np.testing.assert_allclose(np.diagonal(rate), -d, rtol=2 * d * np.finfo(kind).eps)


@pytest.mark.parametrize(('k', 'steps'), [(1, 4), (2, 7), (5, 12), (5, 80)])
@law
@given(data=st.data())
def test_total_is_shared_by_interval_length(k, steps, data):
  weights, order = data.draw(weights_and_order(k))
  table = np.array(schedule.table(schedule.sequential(order, cuts_of(weights)), steps))
  assert table.shape == (steps + 1, k)
  counts = steps_of(table, order)
  assert_table(table, order, counts)
  assert sum(counts) == steps
  assert min(counts) >= 1
  quotas = [Fraction(steps * weight, sum(weights)) for weight in weights[::-1]]
  if min(quotas) >= 1:  # largest remainder, ties to the group generated first
    expected = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(k), key=lambda i: (expected[i] - quotas[i], i))
    for i in by_remainder[: steps - sum(expected)]:
      expected[i] += 1
    assert counts == expected
  else:  # those with too small a share have one step, which others pay for
    assert all(n == 1 for n, quota in zip(counts, quotas, strict=True) if quota < 1)


@pytest.mark.parametrize('wide', [False, True], ids=['float32', 'float64'])
@pytest.mark.parametrize(('k', 'steps', 'many'), [(9, 128, 2), (4, 128, 0), (48, 51, 3)])
def test_equal_intervals_share_evenly_and_the_first_generated_gain(k, steps, many, wide):
  with jax.enable_x64(wide):
    order = np.random.default_rng(0).permutation(k)
    table = schedule.table(schedule.sequential(order), steps)
    least = steps // k
    assert steps_of(table, order) == [least + 1] * many + [least] * (k - many)


@pytest.mark.parametrize('counts', [(3,), (1, 4), (2, 1, 5, 1, 3)])
@law
@given(data=st.data())
def test_steps_per_group_are_in_generation_order(counts, data):
  weights, order = data.draw(weights_and_order(len(counts)))
  table = np.array(schedule.table(schedule.sequential(order, cuts_of(weights)), counts))
  assert_table(table, order, counts)


def test_float32_table_meets_its_boundaries_exactly():
  with jax.enable_x64(False):
    table = schedule.table(schedule.sequential((2, 0, 1), (0.1, 0.7)), 50)
    assert table.dtype == np.float32
    counts = steps_of(table, (2, 0, 1))
    assert counts == [15, 30, 5]
    np.testing.assert_array_equal(table[np.array([0, 15, 45, 50])], np.tri(4, 3, -1)[:, [1, 2, 0]])
    assert np.all(np.diff(table, axis=0) >= 0)


@pytest.mark.parametrize('cuts', [None, (0.1, 0.5)])
def test_tables_of_traced_orders_are_those_of_the_loop(cuts):
  orders = np.array([(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
  plans = jax.jit(lambda orders: schedule.sequential(orders, cuts))(orders)
  assert plans.start.shape == (4, 3)
  tables = jax.vmap(schedule.table, (0, None))(plans, 11)
  for order, table in zip(orders, tables, strict=True):
    alone = schedule.table(schedule.sequential(order, cuts), 11)
    np.testing.assert_allclose(table, alone, atol=1e-15)
    assert_table(table, order, steps_of(alone, order))


def test_cuts_may_be_traced():
  cuts = jnp.asarray([0.25, 0.5])
  table = jax.jit(lambda cuts: schedule.table(schedule.sequential((0, 1, 2), cuts), 8))(cuts)
  assert_table(table, (0, 1, 2), (4, 2, 2))


def test_overlapping_intervals_have_rows_on_every_boundary():
  plan = Schedule(np.array([0.0, 0.2]), np.array([0.6, 1.0]))
  table = schedule.table(plan, (2, 4, 1))
  levels = [(0, 0), (0, 0.25), (0, 0.5), *[(i / 6, 0.5 + i / 8) for i in range(1, 5)], (1, 1)]
  np.testing.assert_allclose(table, levels, atol=1e-12)
  total = schedule.table(plan, 10)
  np.testing.assert_allclose(
    total[np.array([0, 4, 8, 10])], np.array(levels)[[0, 2, 6, 7]], atol=1e-12
  )


def test_intervals_that_are_the_same_and_gaps_between_them_take_no_steps():
  plan = Schedule(np.array([0.0, 0.5, 0.5]), np.array([0.3, 1.0, 1.0]))
  table = schedule.table(plan, (2, 1))
  np.testing.assert_allclose(table, [(0, 0, 0), (0, 0.5, 0.5), (0, 1, 1), (1, 1, 1)])


@pytest.mark.parametrize('wide', [False, True], ids=['float32', 'float64'])
def test_table_ends_in_clean_data_whatever_the_interval(wide):
  with jax.enable_x64(wide):
    for start in np.linspace(0.01, 0.5, 12):
      table = np.array(schedule.table(Schedule(np.array([start]), np.array([0.9])), 3))
      np.testing.assert_array_equal(table[[0, -1]], [[0], [1]])


def test_schedule_over_refined_groups_is_that_of_the_old_ones_everywhere():
  parts = grouping.rows((4, 6), 3), grouping.columns((4, 6), 2)
  refined, indices = grouping.refine(*parts)
  t = np.linspace(0, 1, 9)
  for part, old, order in zip(parts, indices, [(2, 0, 1), (1, 0)], strict=True):
    plan = schedule.sequential(order)
    for values in (schedule.coefficients, schedule.rates):
      np.testing.assert_array_equal(
        values(plan.over(old), t)[:, refined.labels], values(plan, t)[:, part.labels]
      )
    table = schedule.table(plan, 12)
    np.testing.assert_allclose(schedule.table(plan.over(old), 12), table[:, old], atol=1e-12)


@pytest.mark.parametrize('wide', [False, True], ids=['float32', 'float64'])
def test_training_times_are_a_comb(wide):
  with jax.enable_x64(wide):
    comb = jax.vmap(lambda key: schedule.training_times(key, 8))(
      jax.random.split(jax.random.key(0), 50)
    )
    assert np.all((comb > 0) & (comb <= 1))
    np.testing.assert_allclose(np.diff(np.sort(comb), axis=1), 1 / 8, atol=1e-6)
    # Each time alone is uniform: the offset is.
    assert np.all(np.abs(np.mean(comb, axis=0) - 0.5) < 0.15)
    assert np.ptp(np.asarray(comb)[:, 3]) > 0.9


@pytest.mark.parametrize('low_discrepancy', [False, True])
def test_training_times_include_one_and_not_zero(low_discrepancy, monkeypatch):
  monkeypatch.setattr(jax.random, 'uniform', lambda key, shape=(): jnp.zeros(shape))
  times = np.sort(schedule.training_times(jax.random.key(0), 4, low_discrepancy))
  np.testing.assert_allclose(times, [0.25, 0.5, 0.75, 1] if low_discrepancy else np.ones(4))


def test_independent_training_times():
  times = schedule.training_times(jax.random.key(0), 2000, low_discrepancy=False)
  assert np.all((times > 0) & (times <= 1))
  counts = np.histogram(times, 10, (0, 1))[0]
  assert np.sum((counts - 200) ** 2 / 200) < 28  # chi square, 9 degrees of freedom, p = 0.001
  assert np.max(np.diff(np.sort(times))) > 2 / 2000  # no comb


def test_drawn_orders_are_all_permutations_equally_often():
  strategy = Strategy(None, (0.2, 0.5), np.arange(3))
  plan = jax.jit(lambda key: schedule.draw(key, [strategy], 1200))(jax.random.key(0))
  orders = np.argsort(-np.asarray(plan.end), axis=1)
  found, counts = np.unique(orders, axis=0, return_counts=True)
  assert len(found) == 6
  assert np.sum((counts - 200) ** 2 / 200) < 20.5  # chi square, 5 degrees of freedom, p = 0.001
  np.testing.assert_allclose(np.sort(plan.start), np.tile([0, 0.2, 0.5], (1200, 1)))
  np.testing.assert_allclose(np.sort(plan.end), np.tile([0.2, 0.5, 1], (1200, 1)))


def test_every_drawn_schedule_is_one_of_the_strategies():
  _, indices = grouping.refine(grouping.rows((4, 6), 3), grouping.columns((4, 6), 2))
  strategies = [
    Strategy((2, 0, 1), None, indices[0]),
    Strategy((0, 1), (0.3,), indices[1]),
    Strategy(None, None, indices[1]),
  ]
  assert [strategy.num_groups for strategy in strategies] == [3, 2, 2]
  plan = jax.jit(lambda key: schedule.draw(key, strategies, 600))(jax.random.key(1))
  assert plan.start.shape == plan.end.shape == (600, 6)
  drawn = np.stack([plan.start, plan.end], axis=1)
  share = []
  for order, cuts, old in [
    ((2, 0, 1), None, 0),
    ((0, 1), (0.3,), 1),
    ((0, 1), None, 1),
    ((1, 0), None, 1),
  ]:
    one = schedule.sequential(order, cuts).over(indices[old])
    share.append(np.mean(np.all(drawn == np.stack([one.start, one.end]), axis=(1, 2))))
  np.testing.assert_allclose(np.sum(share), 1)
  np.testing.assert_allclose(share, [1 / 3, 1 / 3, 1 / 6, 1 / 6], atol=0.07)


@pytest.mark.parametrize(
  ('order', 'cuts', 'message'),
  [
    ((0, 2), None, r'order \[0, 2\] is no permutation of 0..1'),
    ((0, 0, 1), None, r'order \[0, 0, 1\]'),
    (np.array([[0, 1], [1, 1]]), None, r'order \[\[0, 1\], \[1, 1\]\]'),
    ((0, 1, 2), (0.5, 0.5), r'cuts \(0.5, 0.5\) must be 2 times ascending strictly in \(0, 1\)'),
    ((0, 1, 2), (0.7, 0.2), r'cuts \(0.7, 0.2\)'),
    ((0, 1), (0.0,), r'cuts \(0.0,\)'),
    ((0, 1), (1.0,), r'cuts \(1.0,\)'),
    ((0, 1), (0.2, 0.4), r'cuts \(0.2, 0.4\) must be 1 times'),
    ((0, 1), (math.nan,), r'cuts \(nan,\)'),
  ],
)
def test_misuse_of_sequential_is_named_with_its_value(order, cuts, message):
  with pytest.raises(ValueError, match=message):
    schedule.sequential(order, cuts)


@pytest.mark.parametrize(
  ('steps', 'message'),
  [
    (2, 'steps = 2 are fewer than the 3 intervals'),
    ((4, 4), r'steps = \(4, 4\) must be 3 numbers, each at least 1'),
    ((4, 0, 4), r'steps = \(4, 0, 4\)'),
  ],
)
def test_misuse_of_table_is_named_with_its_value(steps, message):
  with pytest.raises(ValueError, match=message):
    schedule.table(schedule.sequential((0, 1, 2)), steps)


def test_steps_per_group_need_a_concrete_schedule():
  with pytest.raises(ValueError, match='need a concrete schedule'):
    jax.jit(lambda plan: schedule.table(plan, (1, 2)))(schedule.sequential((0, 1)))


def test_a_batch_of_schedules_is_refused():
  orders = np.array([[0, 1], [1, 0]])
  with pytest.raises(ValueError, match=r'batch of schedules, \(2, 2\); use jax.vmap'):
    schedule.table(schedule.sequential(orders), 4)


def test_every_group_has_a_time_in_its_own_interval_which_those_of_one_interval_share():
  strategy = Strategy(None, (0.2, 0.5), np.array([0, 1, 1, 2]))
  diffusion = schedule.draw(jax.random.key(0), [strategy], 400)
  t = np.asarray(schedule.times_of_groups(jax.random.key(1), diffusion))
  assert np.all((t > diffusion.start) & (t <= diffusion.end))
  np.testing.assert_array_equal(t[:, 1], t[:, 2])
  place = (t - diffusion.start) / (diffusion.end - diffusion.start)
  assert np.all(np.diff(np.sort(place, axis=0), axis=0) < 2 / 400)  # a comb for each group
  levels = schedule.coefficients(schedule.of_each_group(diffusion), t)[..., 0]
  np.testing.assert_allclose(levels, 1 - place, atol=1e-5)


def test_earlier_groups_are_those_generated_before():
  diffusion = schedule.sequential(np.array([2, 0, 1])).over(np.array([0, 1, 1, 2]))
  expected = np.array([[0, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 1], [0, 0, 0, 0]], bool)
  np.testing.assert_array_equal(schedule.earlier(diffusion), expected)
