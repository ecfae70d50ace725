"""Which order of the groups is cheapest, if generating group j after the set A has a cost (A, j).

An order is then a path from no group to all of them, through the sets of groups already generated,
and the best of k! orders is a shortest path over 2^k sets: k 2^(k-1) numbers decide it (Held and
Karp 1962). `conditionals` has costs to choose from.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

Order = tuple[int, ...]
Cost = Callable[[frozenset[int], int], float] | np.ndarray
"""cost(A, j) of generating group j after the set A; or these numbers as `tabulate` returns them."""

MOST = 12
"""Groups up to which all sets are searched: 24,576 costs. `beam_search` takes more."""


def best_order(cost: Cost, k: int) -> tuple[Order, float]:
  """The order of the groups 0..k-1 with the smallest total cost, and that total.

  Of orders with equal totals the lexicographically first; totals that are equal but for rounding
  are not equal. Exact, hence only for k up to `MOST`; above, see `beam_search`.

  Raises ValueError for such a k, and if a cost is NaN or infinite.
  """
  table = tabulate(cost, k)
  rest = np.zeros(2**k)  # the least that the groups outside a set can cost after it
  choice = np.zeros(2**k, int)
  for subset in range(2**k - 2, -1, -1):
    paths = [
      table[subset, j] + rest[subset | 1 << j] if not subset >> j & 1 else np.inf for j in range(k)
    ]
    choice[subset] = np.argmin(paths)  # the first of equals
    rest[subset] = paths[choice[subset]]
  order, subset = [], 0
  while len(order) < k:
    order.append(int(choice[subset]))
    subset |= 1 << order[-1]
  return tuple(order), float(rest[0])


def worst_order(cost: Cost, k: int) -> tuple[Order, float]:
  """The order with the largest total cost, and that total; as `best_order` otherwise."""
  order, total = best_order(-tabulate(cost, k), k)
  return order, -total


def mean_cost(cost: Cost, k: int) -> float:
  """The mean total over all k! orders, exactly.

  In a random order group j follows exactly the set A with probability |A|! (k - 1 - |A|)! / k!.
  Raises ValueError as `best_order` does.
  """
  table = tabulate(cost, k)
  return float(
    sum(
      table[subset, j] * _orders_through(subset.bit_count(), k) / math.factorial(k)
      for subset, j in pairs(k)
    )
  )


def order_cost(cost: Cost, order: Sequence[int]) -> float:
  """The total cost of an order. Raises ValueError if it is no permutation, or a cost not finite."""
  _check_order(order)
  costs = [_one(cost, frozenset(order[:i]), j) for i, j in enumerate(order)]
  return float(sum(reversed(costs)))  # from the last, as `best_order` sums


def beam_search(
  cost: Cost, k: int, width: int, least: float | Sequence[float] = 0.0
) -> tuple[Order, float, float]:
  """A good order of many groups, its total, and what no order can be below.

  Group by group, the `width` cheapest sets are kept, each with its cheapest order. So it asks for
  at most width k^2 / 2 costs. It is not exact, unless total and bound are equal; they are if no set
  was dropped, for which a width of the binomial coefficient (k, k // 2) is enough.

  least: what no cost is below, in all or for each group. The bound is then a proven one: an order
    that was not followed has the cost of a set that was dropped, and at least this for every group
    that is left.

  Raises ValueError for a width or k below 1, and if a cost is NaN, infinite or below `least`.
  """
  if width < 1 or k < 1:
    raise ValueError(f'width = {width} and k = {k} must be at least 1')
  least = np.broadcast_to(np.asarray(least, float), k)
  beam: dict[frozenset[int], tuple[float, Order]] = {frozenset(): (0.0, ())}
  bound = np.inf
  for _ in range(k):
    reached: dict[frozenset[int], tuple[float, Order]] = {}
    for known, (total, order) in beam.items():
      for j in set(range(k)) - known:
        value = _one(cost, known, j)
        if value < least[j]:
          raise ValueError(f'cost {value} of group {j} after {sorted(known)} is below {least[j]}')
        path = total + value, (*order, j)
        reached[known | {j}] = min(path, reached.get(known | {j}, path))
    ranked = sorted(reached.items(), key=lambda item: item[1])
    beam = dict(ranked[:width])
    for known, (total, _) in ranked[width:]:
      bound = min(bound, total + sum(least[j] for j in range(k) if j not in known))
  ((total, order),) = beam.values()
  return order, float(total), float(min(bound, total))


def tabulate(cost: Cost, k: int) -> Float[np.ndarray, 'sets k']:
  """The costs [2^k, k]: row A, whose bit i says whether group i is in the set, and column j.

  Of groups j within A there is no cost; those places are 0. Raises ValueError as `best_order` does.
  """
  if not 1 <= k <= MOST:
    raise ValueError(
      f'k = {k}: all sets are searched for 1 to {MOST} groups; beam_search(cost, k, width) takes '
      'more, with a lower bound on what any order costs'
    )
  if isinstance(cost, np.ndarray) and cost.shape != (2**k, k):
    raise ValueError(f'costs of shape {cost.shape} must be {(2**k, k)} for k = {k}')
  table = np.zeros((2**k, k))
  for subset, j in pairs(k):
    table[subset, j] = _one(cost, members(subset), j)
  return table


def pairs(k: int) -> Iterator[tuple[int, int]]:
  """All k 2^(k-1) pairs of a set, as a number with bit i for group i, and a group outside it."""
  for subset, j in itertools.product(range(2**k), range(k)):
    if not subset >> j & 1:
      yield subset, j


def members(subset: int) -> frozenset[int]:
  """The groups of a set that is given as a number."""
  return frozenset(i for i in range(subset.bit_length()) if subset >> i & 1)


def sets_before(orders: Int[np.ndarray, 'm k']) -> Int[np.ndarray, 'm k']:
  """The set generated before each group of each order, as a number."""
  bits = 1 << orders
  return np.cumsum(bits, axis=1) - bits


def differences(
  values: Float[np.ndarray, 'sets k n'],
  orders: Int[np.ndarray, 'm k'],
  other: Sequence[int],
) -> tuple[Float[np.ndarray, ' m'], Float[np.ndarray, ' m']]:
  """How much more each order costs than another one, and the standard error of that.

  values: the costs of n examples, laid out as by `tabulate`. The examples are the same for all
  orders, so their differences are taken one by one (paired): what makes an example costly in every
  order cancels. Two orders whose difference is below two standard errors cannot be told apart. If
  `other` was found to be the best of many on the same examples, luck is part of its lead.

  Raises ValueError for fewer than two examples.
  """
  n = values.shape[2]
  if n < 2:
    raise ValueError(f'{n} example: a standard error needs at least two')
  base = totals(values, np.asarray(other)[None])[0]
  lead = totals(values, orders) - base
  return lead.mean(1), lead.std(axis=1, ddof=1) / math.sqrt(n)


def totals(
  values: Float[np.ndarray, 'sets k n'], orders: Int[np.ndarray, 'm k']
) -> Float[np.ndarray, 'm n']:
  """The total cost of each order on each example."""
  return values[sets_before(orders), orders].sum(1)


def count_alike(
  values: Float[np.ndarray, 'sets k n'],
  other: Sequence[int],
  errors: float = 2.0,
  chunk: int = 4096,
) -> int:
  """How many of all k! orders cannot be told from another one, itself included (`differences`).

  errors: of how many standard errors a difference must be. Takes time in proportion to n k!.
  """
  count, orders = 0, itertools.permutations(range(values.shape[1]))
  while part := list(itertools.islice(orders, chunk)):
    lead, error = differences(values, np.array(part), other)
    count += int(np.sum(np.abs(lead) <= errors * error))
  return count


def _one(cost, known, j):
  if isinstance(cost, np.ndarray):
    value = float(cost[sum(1 << i for i in known), j])
  else:
    value = float(cost(known, j))
  if not math.isfinite(value):
    raise ValueError(f'cost {value} of group {j} after {sorted(known)} must be finite')
  return value


def _orders_through(size, k):
  """How many orders generate exactly a given set of that size, and then a given group."""
  return math.factorial(size) * math.factorial(k - 1 - size)


def _check_order(order):
  if sorted(order) != list(range(len(order))):
    raise ValueError(f'order {tuple(order)} is no permutation of 0..{len(order) - 1}')
