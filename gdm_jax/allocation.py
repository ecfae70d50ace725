"""Where steps help most, by measured error: how many each group gets, and where they end in it."""

import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.optimize import minimize
from jax.tree_util import Partial
from jaxtyping import Float

from gdm_jax import sampling, schedule
from gdm_jax.process import Data, Process
from gdm_jax.sampling import Table
from gdm_jax.schedule import Schedule
from gdm_jax.solvers import Predict, Solver
from gdm_jax.typing import AnyArray


def allocate(
  generation: Schedule,
  steps: int,
  measure: Callable[[tuple[int, ...]], Float[np.ndarray, ' intervals']],
  order: int = 1,
  rounds: int = 2,
) -> tuple[int, ...]:
  """Steps per group, in generation order, that make the groups' errors as even as possible.

  With a solver of order p an interval walked in n steps errs by about C n^-p. The C are measured
  at the equal shares of `schedule.table`; then every group has one step, and each further one goes
  to the group with the largest error. No shares with this total have a smaller largest error, if
  the law holds. It holds only roughly for few steps, hence more rounds from the new shares.

  steps: the total.
  measure(counts): the error of each interval, in generation order, if it is walked in counts[i]
    steps; `interval_measure` makes it.
  order: p, `Solver.order`.

  Returns those of the at most rounds + 1 measured shares whose largest error is smallest, so they
  are never worse than equal shares. Raises ValueError as `schedule.table` does, and for an error
  that is negative or not finite.
  """
  shares = np.array(schedule.equal_shares(generation, steps))
  largest: dict[tuple[int, ...], float] = {}
  for _ in range(rounds + 1):
    counts = tuple(shares.tolist())
    if counts in largest:
      break
    errors = np.asarray(measure(counts), float)
    if errors.shape != shares.shape or not np.all((errors >= 0) & np.isfinite(errors)):
      raise ValueError(f'measured errors {errors} of {counts} must be finite, one per interval')
    largest[counts] = float(errors.max())
    shares = _even_errors(errors * shares ** float(order), int(steps), order)
  return min(largest, key=lambda counts: largest[counts])


def _even_errors(constants, steps, order):
  """The whole numbers n with sum `steps` that make the largest of constants n^-order smallest."""
  counts = np.ones(len(constants), int)
  for _ in range(steps - len(constants)):
    counts[np.argmax(constants / counts ** float(order))] += 1
  return counts


def cuts_by_loss(losses: Sequence[float]) -> tuple[float, ...]:
  """The cuts for training (`schedule.sequential`) that give every group its share of the loss.

  losses: of each group in the order of generation, the squared error || r ||^2 of Eq. 8 integrated
    over its interval, summed over its elements (`conditionals.loss`), of a model trained briefly.

  Training draws times uniformly, so an interval's length is the share of the examples that train
  its group. What an element's prediction has still to learn from n examples of noisy targets falls
  as their variance, which is the loss of the best prediction, over n: lengths in proportion to the
  losses even that out. Lengths are weights of the loss as well, so the proposal is a start for a
  comparison and no optimum. Raises ValueError for a loss that is not positive and finite.
  """
  shares = np.asarray(losses, float)
  if not np.all((shares > 0) & np.isfinite(shares)):
    raise ValueError(f'losses {tuple(map(float, losses))} must be positive and finite')
  # The first boundary ends the interval of the group generated last.
  return tuple((np.cumsum(shares[::-1])[:-1] / shares.sum()).tolist())


def intervals(table: Table, rows: int = 0) -> Float[np.ndarray, 'intervals longest k']:
  """A concrete table cut at the rows where other groups begin to move: one table per interval.

  Shorter ones repeat their last row, steps that change nothing, up to the longest or to `rows`.
  """
  table = np.asarray(table)
  parts = [table[i : j + 1] for i, j in itertools.pairwise(_bounds(table))]
  rows = max(rows, *map(len, parts))
  return np.stack([np.pad(p, ((0, rows - len(p)), (0, 0)), mode='edge') for p in parts])


def _bounds(table):
  """The first row, those where other groups begin to move, and the last."""
  moves = np.diff(table, axis=0) != 0
  return np.array([0, *1 + np.flatnonzero(np.any(moves[1:] != moves[:-1], axis=1)), len(moves)])


def waypoints(
  predict: Predict,
  process: Process,
  tables: Float[AnyArray, 'intervals rows k'],
  z: Data,
  solver: str | Solver = 'rk4',
) -> Float[AnyArray, 'intervals+1 batch *grid c']:
  """The points between the `intervals` of a table: z, then the end of each interval."""

  def along(x, table):
    x = sampling.sample(predict, process, table, x, solver)
    return x, x

  return jnp.concatenate([z[None], jax.lax.scan(along, z, tables)[1]])


def interval_errors(
  predict: Predict,
  process: Process,
  tables: Float[AnyArray, 'intervals rows k'],
  points: Float[AnyArray, 'intervals+1 batch *grid c'],
  solver: str | Solver = 'euler',
) -> Float[AnyArray, ' intervals']:
  """What each interval adds to the error: the root mean square over the coefficients that move.

  Every interval is walked by itself, from its beginning in `points` (`waypoints` of a finer table),
  and compared with its end in them. One vmapped program for all.
  """
  ends = jax.vmap(lambda table, x: sampling.sample(predict, process, table, x, solver))(
    tables, points[:-1]
  )
  moving = process.coefficient_map((tables[:, 0] != tables[:, -1]).astype(points.dtype))[:, None]
  square = moving * process.basis.analyze(ends - points[1:]) ** 2
  axes = tuple(range(1, square.ndim))
  return jnp.sqrt(square.mean(axes) / moving.mean(axes))


def interval_measure(
  predict: Predict,
  process: Process,
  generation: Schedule,
  batches: Sequence[Data],
  solver: str | Solver = 'euler',
  reference_steps: int = 128,
  rho: float = 1.0,
) -> Callable[[Sequence[int]], Float[np.ndarray, ' intervals']]:
  """measure(counts) for `allocate`: `interval_errors` over a few batches of latents.

  rho: of the tables that are measured (`schedule.table`).

  The intervals begin and end where RK4 arrives with an equal share of `reference_steps` each. Make
  predict a `jax.tree_util.Partial` of its parameters, or they are compiled in as constants.
  """

  def tables(steps, rows=0):
    return intervals(process.table(generation, steps, rho), rows)

  predict = predict if isinstance(predict, Partial) else Partial(predict)
  walk, compare = jax.jit(waypoints), jax.jit(interval_errors, static_argnames='solver')
  count = len(tables(max(reference_steps, 2 * process.grouping.num_groups)))
  exact = tables([-(-reference_steps // count)] * count)
  points = [walk(predict, process, exact, z) for z in batches]

  def measure(counts):
    rows = 1 + 2 ** math.ceil(math.log2(max(counts)))  # few lengths, since each is compiled
    cut = tables(counts, rows)
    errors = [compare(predict, process, cut, p, solver=solver) for p in points]
    return np.sqrt(np.mean(np.square(errors), axis=0))

  return measure


def place(
  table: Table, places: Sequence[float] | Float[AnyArray, ' p']
) -> Float[AnyArray, 'rows k']:
  """The table with the rows inside its intervals moved; the boundaries stay where they are.

  table: concrete, even within every interval, on the linear path.
  places: where steps 1 to p end if an interval has p + 1, as shares of it, ascending in (0, 1);
    even ones change nothing. With another number of steps, places in between. Traceable.
  """
  table = np.asarray(table)
  bounds, row = _bounds(table), np.arange(len(table))
  interval = np.searchsorted(bounds[1:-1], row, side='right')
  first, last = bounds[interval], bounds[interval + 1]
  knots = jnp.concatenate([jnp.zeros(1), jnp.asarray(places, float), jnp.ones(1)])
  into = jnp.interp((row - first) / (last - first), np.linspace(0, 1, len(knots)), knots)
  return table[first] + into[:, None] * (table[last] - table[first])


def fit_places(
  predict: Predict,
  process: Process,
  tables: Float[AnyArray, 'orders rows k'],
  z: Data,
  targets: Float[AnyArray, 'orders batch *grid c'],
  solver: str | Solver = 'euler',
  iterations: int = 30,
) -> Float[np.ndarray, ' p']:
  """Places for `place` that bring the solver nearest to where a much finer walk arrives (BFGS).

  tables: as for `place`, of one order or several, which then share the places. z, targets: latents,
  and where they arrive in each order. Minimised is the mean over examples of the root mean square
  difference, so that few that turn into others do not rule it. Make predict a
  `jax.tree_util.Partial` of its parameters, as for `interval_measure`.

  Raises ValueError if no interval has two steps, since then there is nothing to place.
  """
  tables = np.asarray(tables)
  steps = max(int(np.diff(_bounds(table)).max()) for table in tables)
  if steps < 2:
    raise ValueError('every interval has one step: there is nothing to place')

  def distance(logits, predict, z, targets):
    places = jnp.cumsum(jax.nn.softmax(logits))[:-1]
    rows = jnp.stack([place(table, places) for table in tables])
    gaps = sampling.sweep(predict, process, rows, z, solver) - targets
    return jnp.mean(jnp.sqrt(jnp.mean(gaps**2, axis=tuple(range(2, gaps.ndim)))))

  @jax.jit
  def fitted(*given):
    even = jnp.zeros(steps)
    found = minimize(distance, even, given, method='BFGS', options={'maxiter': iterations})
    return jnp.cumsum(jax.nn.softmax(found.x))[:-1]

  predict = predict if isinstance(predict, Partial) else Partial(predict)
  return np.asarray(fitted(predict, z, targets))
