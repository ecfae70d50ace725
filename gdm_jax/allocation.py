"""What each group's interval adds to the error of a sample, for `schedule.allocate`."""

import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from gdm_jax import sampling, schedule
from gdm_jax.process import Data, Process
from gdm_jax.sampling import Table
from gdm_jax.schedule import Schedule
from gdm_jax.solvers import Predict, Solver


def intervals(table: Table, rows: int = 0) -> Float[np.ndarray, 'pieces rows k']:
  """A concrete table cut where other groups begin to move: one table per interval.

  Shorter ones repeat their last row, steps that change nothing, up to `rows` where that is more.
  """
  table = np.asarray(table)
  moves = np.diff(table, axis=0) != 0
  cuts = 1 + np.flatnonzero(np.any(moves[1:] != moves[:-1], axis=1))
  parts = [table[i : j + 1] for i, j in itertools.pairwise([0, *cuts, len(moves)])]
  rows = max(rows, *map(len, parts))
  return np.stack([np.pad(p, ((0, rows - len(p)), (0, 0)), mode='edge') for p in parts])


def waypoints(
  predict: Predict,
  process: Process,
  tables: Float[Array, 'pieces rows k'],
  z: Data,
  solver: str | Solver = 'rk4',
) -> Float[Array, 'pieces+1 batch *grid c']:
  """The points between the `intervals` of a table: z, then where each of them ends."""

  def along(x, table):
    x = sampling.sample(predict, process, table, x, solver)
    return x, x

  return jnp.concatenate([z[None], jax.lax.scan(along, z, tables)[1]])


def interval_errors(
  predict: Predict,
  process: Process,
  tables: Float[Array, 'pieces rows k'],
  points: Float[Array, 'pieces+1 batch *grid c'],
  solver: str | Solver = 'euler',
) -> Float[Array, ' pieces']:
  """What each interval adds to the error: the root mean square over the coefficients that move.

  Every interval is walked by itself, from its beginning in `points` (`waypoints` of a finer table),
  and compared with its end there. One vmapped program for all.
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
  plan: Schedule,
  batches: Sequence[Data],
  solver: str | Solver = 'euler',
  reference_steps: int = 128,
) -> Callable[[Sequence[int]], Float[np.ndarray, ' pieces']]:
  """measure(counts) for `schedule.allocate`: `interval_errors` over a few batches of latents.

  The intervals begin and end where RK4 arrives with an equal share of `reference_steps` each. Make
  predict a `jax.tree_util.Partial` of its parameters, lest they are compiled in as constants.
  """

  def tables(steps, rows=0):
    return intervals(process.path.level(schedule.table(plan, steps)), rows)

  predict = predict if isinstance(predict, Partial) else Partial(predict)
  walk, compare = jax.jit(waypoints), jax.jit(interval_errors, static_argnames='solver')
  pieces = len(tables(max(reference_steps, process.grouping.num_groups)))
  exact = tables([-(-reference_steps // pieces)] * pieces)
  points = [walk(predict, process, exact, z) for z in batches]

  def measure(counts):
    rows = 1 + 2 ** math.ceil(math.log2(max(counts)))  # few lengths, since each is compiled
    cut = tables(counts, rows)
    errors = [compare(predict, process, cut, p, solver=solver) for p in points]
    return np.sqrt(np.mean(np.square(errors), axis=0))

  return measure
