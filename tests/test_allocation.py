"""Sharing steps out by measured error: the law it rests on, and the measuring on Gaussian data."""

import functools
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from gdm_jax import allocation, grouping, sampling, schedule, solvers
from gdm_jax import basis as bases
from gdm_jax import path as paths
from gdm_jax.process import Process
from gdm_jax.schedule import Schedule
from tests.support import gaussian
from tests.support.gaussian import CASES

pytestmark = pytest.mark.usefixtures('float64')

law = settings(deadline=None, max_examples=25, derandomize=True)
EQUAL = schedule.sequential((2, 0, 1))
constants = st.lists(st.floats(0.01, 100), min_size=3, max_size=3).map(np.array)
orders = st.sampled_from([1, 2, 4])


def falling(constants, order, seen=None):
  """measure() of intervals whose error is exactly C n^-p."""

  def measure(counts):
    if seen is not None:
      seen.append(counts)
    return constants / np.array(counts, float) ** order

  return measure


def compositions(steps):
  return [c for c in itertools.product(range(1, steps), repeat=3) if sum(c) == steps]


@law
@given(constants, orders, st.integers(3, 12))
def test_no_other_shares_have_a_smaller_largest_error(constants, order, steps):
  measure = falling(constants, order)
  counts = allocation.allocate(EQUAL, steps, measure, order)
  assert sum(counts) == steps
  assert min(counts) >= 1
  best = min(max(measure(other)) for other in compositions(steps))
  assert max(measure(counts)) <= best * (1 + 1e-12)


@law
@given(constants, orders)
def test_errors_are_even_within_a_step(constants, order):
  counts = allocation.allocate(EQUAL, 300, falling(constants, order), order)
  share = constants ** (1 / order)
  np.testing.assert_allclose(counts, 300 * share / share.sum(), atol=3)


@law
@given(constants, orders, st.permutations(range(3)), st.floats(0.1, 10))
def test_shares_follow_the_intervals_and_not_their_unit_or_group(constants, order, other, unit):
  one = allocation.allocate(EQUAL, 100, falling(constants, order), order)
  assert one == allocation.allocate(EQUAL, 100, falling(constants, order), order)
  renamed = schedule.sequential(other)
  assert one == allocation.allocate(renamed, 100, falling(constants, order), order)
  scaled = allocation.allocate(EQUAL, 100, falling(unit * constants, order), order)
  moved = allocation.allocate(EQUAL, 100, falling(constants[list(other)], order), order)
  # Where two errors tie but for rounding, either may have the last step.
  assert max(abs(np.subtract(one, scaled))) <= 1
  assert max(abs(np.subtract(np.array(one)[list(other)], moved))) <= 1


def test_the_order_of_the_solver_decides_how_much_a_step_helps():
  shares = [allocation.allocate(EQUAL, 42, falling([16, 4, 1], p), p) for p in (1, 2, 4)]
  assert shares == [(32, 8, 2), (24, 12, 6), (19, 13, 10)]


def test_measuring_starts_from_the_shares_of_the_table_and_stops_when_they_stay():
  plan, seen = schedule.sequential((0, 1, 2), (0.2, 0.5)), []
  assert allocation.allocate(plan, 10, falling([5, 3, 2], 1, seen)) == (5, 3, 2)
  assert seen == [(5, 3, 2)]
  seen = []
  assert allocation.allocate(plan, 10, falling([1, 1, 8], 1, seen), rounds=5) == (1, 1, 8)
  assert seen == [(5, 3, 2), (1, 1, 8)]
  assert allocation.allocate(plan, 10, falling([1, 1, 8], 1), rounds=0) == (5, 3, 2)


def test_more_rounds_correct_a_law_that_does_not_hold_yet():
  def measure(counts):
    return np.array([1.0, 60.0, 0.05]) / np.array(counts) ** np.array([1.0, 2.0, 0.5])

  shares = [allocation.allocate(EQUAL, 60, measure, 1, rounds) for rounds in (0, 1, 2)]
  largest = [max(measure(counts)) for counts in shares]
  assert largest[0] > 2 * largest[1]
  assert largest[1] > 1.2 * largest[2]


def test_shares_that_turn_out_worse_are_not_returned():
  def measure(counts):  # the more steps, the worse
    return np.array(counts, float)

  assert allocation.allocate(EQUAL, 30, measure) == (10, 10, 10)


def test_intervals_without_error_keep_a_step():
  assert allocation.allocate(EQUAL, 9, falling([0, 0, 0], 2), 2) == (3, 3, 3)
  assert allocation.allocate(EQUAL, 9, falling([0, 1, 0], 2), 2) == (1, 7, 1)


def test_overlapping_intervals_are_shared_by_their_pieces():
  plan = Schedule(np.array([0.0, 0.2]), np.array([0.6, 1.0]))
  counts = allocation.allocate(plan, 12, falling([1, 4, 1], 1))
  assert counts == (2, 8, 2)
  assert schedule.table(plan, counts).shape == (13, 2)


@pytest.mark.parametrize(
  ('plan', 'steps', 'errors', 'message'),
  [
    (EQUAL, 2, [1, 1, 1], 'steps = 2 are fewer than the 3 intervals'),
    (schedule.sequential([[0, 1], [1, 0]]), 4, [1, 1], 'batch of schedules'),
    (EQUAL, 6, [1, np.nan, 1], r'errors \[ 1. nan  1.\] of \(2, 2, 2\) must be finite'),
    (EQUAL, 6, [1, -1, 1], 'must be finite'),
    (EQUAL, 6, [1, 1], 'one per interval'),
  ],
)
def test_misuse_of_allocate_is_named_with_its_value(plan, steps, errors, message):
  with pytest.raises(ValueError, match=message):
    allocation.allocate(plan, steps, lambda counts: np.array(errors, float))


def test_a_table_is_cut_where_other_groups_begin_to_move():
  table = np.asarray(schedule.table(schedule.sequential((1, 0, 2)), (2, 1, 4)))
  parts = allocation.intervals(table, 6)
  assert parts.shape == (3, 6, 3)
  for part, first, last in zip(parts, (0, 2, 3), (2, 3, 7), strict=True):
    np.testing.assert_array_equal(part, gaussian.pad(table[first : last + 1], 6))
  assert allocation.intervals(table).shape == (3, 5, 3)
  overlapping = schedule.table(Schedule(np.array([0.0, 0.2]), np.array([0.6, 1.0])), (2, 3, 1))
  assert allocation.intervals(overlapping).shape == (3, 4, 2)


def setting(name, path=paths.linear, count=16):
  case = CASES[name].over(path)
  data = gaussian.mixture(int(np.prod(case.shape)))
  z = np.random.default_rng(0).normal(size=(count, *case.shape, 1))
  return case, data, Partial(predict, data, case.process), z


def predict(data, process, x_t, alpha):
  return gaussian.optimal(data, process)(x_t, alpha)


walk = jax.jit(allocation.waypoints, static_argnames='solver')
compare = jax.jit(allocation.interval_errors, static_argnames='solver')
sample = jax.jit(sampling.sample, static_argnames='solver')


@pytest.mark.parametrize('path', paths.PATHS.values(), ids=paths.PATHS)
@pytest.mark.parametrize('name', ['rows 4x4', 'blur 4x4'])
def test_waypoints_are_where_the_exact_flow_is(name, path):
  case, data, u, z = setting(name, path)
  tables = allocation.intervals(path.level(case.table(2)))
  points = walk(u, case.process, tables, z)
  coefficients, start = case.process.basis.analyze(points), case.process.basis.analyze(z)
  end = case.process.basis.analyze(gaussian.transport(data, case.process, case.order, z))
  for i in range(len(case.order) + 1):
    done = np.isin(case.process.grouping.labels, case.order[:i])[..., None]
    np.testing.assert_allclose(coefficients[i], np.where(done, end, start), atol=1e-6)


def test_error_of_an_interval_is_that_of_its_own_walk():
  case, data, u, z = setting('blur 4x4')
  end = gaussian.transport(data, case.process, case.order, z)
  table, groups = case.table(), case.process.grouping.labels
  rows = np.cumsum([0, *case.steps])
  done = [np.isin(np.arange(3), case.order[:i]).astype(float) for i in range(4)]
  points = np.stack([case.process.replace(z, end, groups) for groups in done])
  found = compare(u, case.process, allocation.intervals(table, 40), points)
  for i, group in enumerate(case.order):
    own = gaussian.pad(table[rows[i] : rows[i + 1] + 1], 40)
    alone = sample(u, case.process, own, points[i])
    gap = case.process.basis.analyze(alone - points[i + 1])[:, np.asarray(groups) == group]
    np.testing.assert_allclose(found[i], np.sqrt(np.mean(gap**2)), rtol=1e-9)


@pytest.mark.parametrize('name', [n for n, s in solvers.SOLVERS.items() if s.order])
def test_error_of_an_interval_falls_with_the_order_of_the_solver(name):
  case, _, u, z = setting('columns 3x5')
  points = walk(u, case.process, allocation.intervals(case.table(8)), z)
  coarse, fine = (
    np.asarray(
      compare(u, case.process, allocation.intervals(case.table(n), 65), points, solver=name)
    )
    for n in (1, 2)
  )
  on_gaussians = {'midpoint': 3, 'multistep_midpoint': 3}  # as their docstrings say
  order = on_gaussians.get(name, solvers.get_solver(name).order)
  assert np.all(abs(np.log2(coarse / fine) - order) < 0.4)


def test_batches_count_alike_and_padding_changes_nothing():
  case, _, u, z = setting('elements 2')
  plan = schedule.sequential(case.order, case.cuts)
  measures = [
    allocation.interval_measure(u, case.process, plan, batches, 'heun', 40)
    for batches in ([z], [z[:8], z[8:]])
  ]
  for counts in [(2, 3), (8, 3)]:
    one, other = (measure(counts) for measure in measures)
    np.testing.assert_allclose(one, other, rtol=1e-9)
  # A group's error is its own: the steps of the others are nothing to it.
  np.testing.assert_allclose(measures[0]((2, 3))[1], one[1], rtol=1e-9)


def test_strategies_over_refined_groups_have_the_same_errors():
  parts = grouping.rows((4, 4), 2), grouping.columns((4, 4), 2)
  refined, indices = grouping.refine(*parts)
  data, z = gaussian.mixture(16), np.random.default_rng(0).normal(size=(4, 4, 4, 1))
  plan, basis = schedule.sequential((1, 0)), bases.pixel((4, 4))
  measures = [
    allocation.interval_measure(
      functools.partial(predict, data, process), process, each, [z], reference_steps=40
    )
    for process, each in [
      (Process(parts[0], basis), plan),
      (Process(refined, basis), plan.over(indices[0])),
    ]
  ]
  np.testing.assert_allclose(measures[0]((3, 5)), measures[1]((3, 5)), rtol=1e-9)


def test_a_hard_group_gets_the_steps_of_an_easy_one_and_the_data_gain():
  """Two groups that are nearly flat, to which noise flows straight, around one that is not."""
  d = 6
  data = gaussian.Mixture(
    np.ones(1), np.zeros((1, d)), np.diag([1e-4, 1e-4, 1, 0.8, 1e-4, 1e-4])[None]
  )
  process = Process(grouping.rows((d,), 3), bases.pixel((d,)))
  plan, z = schedule.sequential((0, 1, 2)), np.random.default_rng(0).normal(size=(32, d, 1))
  measure = allocation.interval_measure(
    Partial(predict, data, process), process, plan, [z], reference_steps=120
  )
  equal, allocated = (6, 6, 6), allocation.allocate(plan, 18, measure)
  assert sum(allocated) == 18
  assert allocated[1] > 10
  assert max(measure(allocated)) < 0.6 * max(measure(equal))

  exact = gaussian.transport(data, process, (0, 1, 2), z)
  errors = [
    np.sqrt(np.mean((np.asarray(x) - exact) ** 2))
    for x in (
      sample(Partial(predict, data, process), process, schedule.table(plan, n), z)
      for n in (equal, allocated)
    )
  ]
  assert errors[1] < 0.6 * errors[0]


@law
@given(st.permutations(range(3)), constants)
def test_cuts_give_every_group_its_share_of_the_loss(order, losses):
  plan = schedule.sequential(order, allocation.cuts_by_loss(losses.tolist()))
  lengths = np.asarray(plan.end - plan.start)[list(order)]
  np.testing.assert_allclose(lengths, losses / losses.sum(), atol=1e-9)


def test_losses_that_give_no_cuts_are_refused():
  assert allocation.cuts_by_loss([1, 1, 2]) == (0.5, 0.75)
  for bad in (0.0, -1.0, float('nan'), float('inf')):
    with pytest.raises(ValueError, match='positive and finite'):
      allocation.cuts_by_loss([1.0, bad])


@law
@given(
  st.lists(st.integers(1, 5), min_size=3, max_size=3),
  st.lists(st.floats(0.05, 1), min_size=2, max_size=5).map(np.array),
)
def test_placing_moves_the_rows_inside_of_intervals_alone(counts, lengths):
  table = np.asarray(schedule.table(EQUAL, counts))
  even = np.arange(1, len(lengths)) / len(lengths)
  np.testing.assert_allclose(allocation.place(table, even), table, atol=1e-6)
  placed = np.asarray(allocation.place(table, np.cumsum(lengths)[:-1] / lengths.sum()))
  ends = np.cumsum([0, *counts])
  np.testing.assert_allclose(placed[ends], table[ends], atol=1e-6)
  np.testing.assert_array_equal(np.diff(placed, axis=0) > 0, np.diff(table, axis=0) > 0)


def test_places_are_the_shares_of_every_interval():
  table = schedule.table(schedule.sequential((1, 0)), (3, 3))
  placed = allocation.place(table, (0.1, 0.7))
  np.testing.assert_allclose(placed[:4, 1], (0, 0.1, 0.7, 1))
  np.testing.assert_allclose(placed[3:, 0], (0, 0.1, 0.7, 1))


def test_a_fit_finds_the_best_place_of_all():
  process, data = Process(grouping.elements((2,)), bases.pixel((2,))), gaussian.mixture(2)
  z = np.random.default_rng(0).normal(size=(64, 2, 1))
  orders = (0, 1), (1, 0)
  tables = np.stack([schedule.table(schedule.sequential(order), 4) for order in orders])
  targets = np.stack([gaussian.transport(data, process, order, z) for order in orders])
  predict = gaussian.optimal(data, process)

  def distance(place):
    placed = np.stack([allocation.place(table, (place,)) for table in tables])
    gaps = sampling.sweep(predict, process, placed, z, 'euler') - targets
    return float(np.mean(np.sqrt(np.mean(np.square(gaps), axis=(2, 3)))))

  (found,) = allocation.fit_places(predict, process, tables, z, targets)
  tried = np.linspace(0.05, 0.95, 19)
  best = min(map(distance, tried))
  assert distance(found) <= best
  assert best < 0.95 * distance(0.5)


def test_there_must_be_a_place():
  process, z = Process(grouping.elements((3,)), bases.pixel((3,))), np.zeros((2, 3, 1))
  table = schedule.table(EQUAL, (1, 1, 1))
  with pytest.raises(ValueError, match='nothing to place'):
    allocation.fit_places(gaussian.nonlinear, process, table[None], z, z[None])
