"""Strategies whose intervals overlap: schedules, tables, and what training draws of them."""

import functools
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdm_jax import schedule
from gdm_jax.schedule import Strategy

pytestmark = pytest.mark.usefixtures('float64')

law = settings(deadline=None, max_examples=20, derandomize=True)


@pytest.mark.parametrize('cuts', [None, (0.2, 0.3, 0.9)])
@pytest.mark.parametrize('traced', [False, True], ids=['concrete', 'traced'])
@pytest.mark.parametrize('wide', [False, True], ids=['float32', 'float64'])
def test_no_overlap_is_sequential_bit_for_bit_and_full_overlap_is_one_group(cuts, traced, wide):
  with jax.enable_x64(wide):
    order = np.array([2, 0, 3, 1])

    def of(overlap):
      make = functools.partial(schedule.overlapping, overlap=overlap, cuts=cuts)
      return jax.jit(make)(order) if traced else make(order)

    boundaries = np.array([0, *(cuts or (0.25, 0.5, 0.75)), 1], float)
    start, end = np.zeros(4), np.zeros(4)
    start[order[::-1]], end[order[::-1]] = boundaries[:-1], boundaries[1:]
    kind = np.float64 if wide else np.float32
    np.testing.assert_array_equal(of(0.0).start, start.astype(kind))
    np.testing.assert_array_equal(of(0.0).end, end.astype(kind))
    np.testing.assert_array_equal(of(1.0).start, np.zeros(4))
    np.testing.assert_array_equal(of(1.0).end, np.ones(4))


@law
@given(
  st.lists(st.integers(1, 20), min_size=5, max_size=5),
  st.permutations(range(5)),
  st.floats(0, 1, allow_subnormal=False),
  st.floats(0, 1, allow_subnormal=False),
)
def test_intervals_widen_with_the_overlap_and_keep_the_order(weights, order, one, other):
  less, more = sorted([one, other])
  cuts = tuple((np.cumsum(weights) / np.sum(weights))[:-1])
  narrow, wide = (schedule.overlapping(order, o, cuts) for o in (less, more))
  assert np.all(wide.start <= narrow.start + 1e-11)
  assert np.all(wide.end >= narrow.end - 1e-11)
  boundaries = np.cumsum([0, *weights]) / np.sum(weights)
  np.testing.assert_allclose(
    np.asarray(narrow.start)[list(order)], (1 - less) * boundaries[:-1][::-1], atol=1e-11
  )
  np.testing.assert_allclose(
    np.asarray(narrow.end)[list(order)],
    boundaries[1:][::-1] + less * (1 - boundaries[1:][::-1]),
    atol=1e-11,
  )
  if less < 1:
    assert schedule.order_of(narrow) == tuple(order)


@pytest.mark.parametrize(('k', 'w'), [(4, 2), (6, 3), (10, 7), (5, 1)])
def test_a_rolling_window_has_as_many_groups_under_way_at_every_time(k, w):
  plan = schedule.overlapping(range(k), (w - 1) / (k + w - 1))
  table = np.asarray(schedule.table(plan, k + w - 1))  # ends meet starts: no tiny intervals
  place = np.arange(k + w)[:, None] - np.arange(k)
  np.testing.assert_allclose(table, np.clip(place / w, 0, 1), atol=1e-9)


def test_a_table_of_overlapping_intervals_shares_steps_by_their_length():
  plan = schedule.overlapping((1, 0), 0.5)
  np.testing.assert_allclose((plan.start, plan.end), [(0, 0.25), (0.75, 1)])
  table = np.asarray(schedule.table(plan, 8))
  expected = [(0, i / 6) for i in range(3)]
  expected += [(i / 6, (i + 2) / 6) for i in range(1, 5)] + [(5 / 6, 1), (1, 1)]
  np.testing.assert_allclose(table, expected, atol=1e-12)


def test_explicit_intervals_and_their_order():
  plan = schedule.explicit((0.5, 0, 0.5, 0.2), (1, 0.6, 0.9, 0.9))
  np.testing.assert_array_equal(plan.start, [0.5, 0, 0.5, 0.2])
  assert schedule.order_of(plan) == (0, 2, 3, 1)


@pytest.mark.parametrize(
  ('start', 'end', 'message'),
  [
    ((0, 0.5), (0.5,), '2 starts and 1 ends'),
    ((0, 0.5), (0.5, 0.5), r'group 1 has \(0.5, 0.5\]: must be 0 <= start < end <= 1'),
    ((0, 0.5), (0.5, 1.1), r'group 1 has \(0.5, 1.1\]'),
    ((-0.1, 0.5), (0.5, 1), r'group 0 has \(-0.1, 0.5\]'),
    ((0, math.nan), (0.5, 1), r'group 1 has \(nan, 1\]'),
    ((0, 0.5), (0.4, 1), 'no group moves from 0.4 to 0.5'),
    ((0.1, 0.5), (0.6, 1), 'no group moves from 0 to 0.1'),
    ((0, 0.5), (0.6, 0.9), 'no group moves from 0.9 to 1'),
  ],
)
def test_misuse_of_explicit_intervals_is_named(start, end, message):
  with pytest.raises(ValueError, match=message):
    schedule.explicit(start, end)


@pytest.mark.parametrize('overlap', [-0.1, 1.1, math.nan])
def test_an_overlap_outside_0_to_1_is_named(overlap):
  with pytest.raises(ValueError, match=f'overlap {overlap} must be 0, one group after another'):
    schedule.overlapping((0, 1), overlap)


def test_which_strategies_overlap():
  whole = np.arange(3)
  assert [Strategy(None, None, whole, overlap).overlaps for overlap in (0.0, 0.1, 1.0)] == [
    *(False, True, False)
  ]
  steps = [Strategy(None, None, whole, overlap).fewest_steps for overlap in (0.0, 0.1, 1.0)]
  assert steps == [3, 5, 1]
  together = schedule.explicit((0, 0.5, 0.5), (0.5, 1, 1))
  assert not Strategy((1, 2, 0), None, whole, intervals=together).overlaps
  assert Strategy((1, 2, 0), None, whole, intervals=together).fewest_steps == 2
  apart = schedule.explicit((0, 0), (0.5, 1))
  assert Strategy((0, 1), None, np.arange(2), intervals=apart).overlaps


def test_drawn_schedules_overlap():
  strategies = [
    Strategy(None, None, np.array([0, 1, 1]), 0.5),
    Strategy((1, 0), None, np.array([0, 0, 1]), intervals=schedule.explicit((0, 0.3), (0.6, 1))),
  ]
  plan = jax.jit(lambda key: schedule.draw(key, strategies, 200))(jax.random.key(0))
  found = np.unique(np.round(np.concatenate([plan.start, plan.end], axis=1), 6), axis=0)
  expected = [(0, 0, 0.3, 0.6, 0.6, 1), (0, 0.25, 0.25, 0.75, 1, 1), (0.25, 0, 0, 1, 0.75, 0.75)]
  np.testing.assert_allclose(found, expected)
