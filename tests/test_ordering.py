"""The best order by subsets: planted orders, brute force, exact means, beams with a bound."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdm_jax import ordering

law = settings(deadline=None, max_examples=25, derandomize=True)


def planted(order, seed=0):
  """Costs of which the steps of one order are the smallest by far, and of all the rest random."""
  rng, k = np.random.default_rng(seed), len(order)
  table = rng.uniform(1, 2, (2**k, k))
  steps = rng.integers(1, 8, k) / 1024
  for i, j in enumerate(order):
    table[sum(1 << known for known in order[:i]), j] = steps[i]
  return table, steps.sum()


def as_function(table):
  return lambda known, j: float(table[sum(1 << i for i in known), j])


@pytest.mark.parametrize('k', [4, 9, 12])
def test_a_planted_order_is_found(k):
  order = tuple(np.random.default_rng(k).permutation(k).tolist())
  table, total = planted(order)
  assert ordering.best_order(as_function(table), k) == (order, total)
  assert ordering.best_order(table, k) == (order, total)
  assert ordering.order_cost(table, order) == total
  worst, largest = ordering.worst_order(-table, k)
  assert (worst, largest) == (order, -total)


whole = st.lists(st.integers(-2, 2), min_size=160, max_size=160)  # sums of these are exact


@law
@given(whole)
def test_brute_force_agrees_also_where_orders_tie(costs):
  table = np.array(costs, float).reshape(32, 5)
  orders = list(itertools.permutations(range(5)))
  sums = [ordering.order_cost(table, order) for order in orders]
  # `index` finds the first, and permutations come in lexicographical order.
  assert ordering.best_order(table, 5) == (orders[sums.index(min(sums))], min(sums))
  assert ordering.worst_order(table, 5) == (orders[sums.index(max(sums))], max(sums))
  assert ordering.mean_cost(table, 5) == pytest.approx(np.mean(sums), abs=1e-12)


@law
@given(whole, st.integers(1, 10))
def test_a_beam_is_an_order_with_its_cost_and_the_bound_holds(costs, width):
  table = np.array(costs, float).reshape(32, 5) + 2
  _, total = ordering.best_order(table, 5)
  order, found, bound = ordering.beam_search(table, 5, width)
  assert found == ordering.order_cost(table, order)
  assert bound <= total <= found
  if width >= math.comb(5, 2):  # as many sets as there are: nothing is dropped
    assert (found, bound) == (total, total)


def test_a_beam_takes_more_groups_and_asks_for_few_costs():
  k, asked = 30, set()

  def cost(known, j):
    asked.add((known, j))
    return 1.0 + (j != len(known))  # the order 0, 1, 2, ... is the best

  order, total, bound = ordering.beam_search(cost, k, 8, least=1.0)
  assert (order, total) == (tuple(range(k)), k)
  assert bound == k
  assert len(asked) <= 8 * k * (k + 1) / 2


def test_a_better_least_cost_gives_a_better_bound():
  table = np.random.default_rng(0).uniform(1, 2, (32, 5))
  bounds = [ordering.beam_search(table, 5, 1, least)[2] for least in (0.0, 1.0)]
  assert bounds[0] < bounds[1] <= ordering.best_order(table, 5)[1]


def test_equal_costs_give_the_first_order():
  assert ordering.best_order(lambda known, j: 0.0, 4) == ((0, 1, 2, 3), 0)


def test_costs_are_asked_for_once_and_only_outside_the_set():
  asked = []

  def cost(known, j):
    asked.append((known, j))
    return len(known) * j

  ordering.best_order(cost, 4)
  assert len(asked) == len(set(asked)) == 4 * 2**3
  assert all(isinstance(known, frozenset) and j not in known for known, j in asked)


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
def test_a_cost_that_is_no_number_is_named(bad):
  def cost(known, j):
    return bad if (known, j) == (frozenset({0, 2}), 1) else 0.0

  message = r'cost -?(nan|inf) of group 1 after \[0, 2\] must be finite'
  with pytest.raises(ValueError, match=message):
    ordering.best_order(cost, 3)
  with pytest.raises(ValueError, match=message):
    ordering.mean_cost(cost, 3)
  with pytest.raises(ValueError, match=message):
    ordering.order_cost(cost, (2, 0, 1))
  with pytest.raises(ValueError, match=message):
    ordering.beam_search(cost, 3, 9, least=-1)


def test_what_cannot_be_searched_is_refused():
  with pytest.raises(ValueError, match=r'k = 13.*beam_search'):
    ordering.best_order(lambda known, j: 0.0, 13)
  with pytest.raises(ValueError, match='k = 0'):
    ordering.best_order(lambda known, j: 0.0, 0)
  with pytest.raises(ValueError, match='no permutation'):
    ordering.order_cost(np.zeros((8, 3)), (0, 0, 1))
  with pytest.raises(ValueError, match=r'must be \(8, 3\)'):
    ordering.best_order(np.zeros((4, 2)), 3)
  with pytest.raises(ValueError, match='below'):
    ordering.beam_search(lambda known, j: -1.0, 3, 2)
  with pytest.raises(ValueError, match='width = 0'):
    ordering.beam_search(lambda known, j: 0.0, 3, 0)
  with pytest.raises(ValueError, match='at least two'):
    ordering.differences(np.zeros((4, 2, 1)), np.array([[0, 1]]), (1, 0))


def test_differences_are_paired():
  """What makes an example costly in every order does not blur the orders."""
  rng = np.random.default_rng(0)
  n, base = 200, np.zeros((8, 3, 1))
  base[0b011, 2] = 0.1  # after 0 and 1 in either order
  hard = 100 * rng.normal(size=n)
  values = base + np.broadcast_to(hard, (8, 3, n)) + 0.1 * rng.normal(size=(8, 3, n))
  orders = np.array(list(itertools.permutations(range(3))))
  lead, error = ordering.differences(values, orders, (2, 1, 0))
  exact = [0.1 if tuple(order)[2] == 2 else 0.0 for order in orders]
  assert lead[-1] == error[-1] == 0
  np.testing.assert_allclose(error[:-1], 0.1 * np.sqrt(np.array([6, 6, 4, 6, 4]) / n), rtol=0.3)
  assert np.all(np.abs(lead - exact) < 4 * np.maximum(error, 1e-9))
  alike = ordering.count_alike(values, (2, 1, 0), chunk=4)
  assert alike == np.sum(np.abs(lead) <= 2 * error)
  assert 3 <= alike <= 4  # not those that generate 2 last; one of the others may be unlucky


def test_sets_and_pairs():
  assert list(ordering.pairs(2)) == [(0, 0), (0, 1), (1, 1), (2, 0)]
  assert ordering.members(0b1011) == {0, 1, 3}
  before = ordering.sets_before(np.array([[2, 0, 1], [0, 1, 2]]))
  assert before.tolist() == [[0, 0b100, 0b101], [0, 0b001, 0b011]]
