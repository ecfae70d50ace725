"""Grouped sampling with a cache: groups that are known are context, computed once.

The walks of `sampling` and `likelihood` evaluate the network on whole examples, so k groups cost k
times what one costs. A groupwise network (`models.GroupwiseNetwork`) predicts a group from those
known alone. Here each interval of a table is walked with the tokens of its own groups, against the
cache of the known ones; the results are the same. Everything is in coefficients.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree

from gdm_jax import likelihood, sampling
from gdm_jax.process import Data, Process
from gdm_jax.sampling import Table
from gdm_jax.solvers import Predict, Solver, State, get_solver
from gdm_jax.typing import AnyArray

CONTEXTS = 2
"""How many sizes of context a plan has besides none. Each compiles a program of its own; with more
of them fewer tokens are attended to that are not known yet."""


@runtime_checkable
class Model(Protocol):
  """What a walk needs of a network with its parameters (`conditioning.Cached`)."""

  groups: Int[np.ndarray, ' T']

  def encode(self, x: Data, ids: Int[AnyArray, ' n']) -> PyTree:
    """The cache of clean tokens; leaves are [batch, heads, n, features], n of them along axis 2."""

  def predict(self, cache: PyTree, known: Int[AnyArray, ' m'], ids: Int[AnyArray, ' n']) -> Predict:
    """`predict(x_t, alpha)` for tokens that move together, given those of the cache that are known;
    0 for all others. known: which token each of the cache is; the number of all if it is not."""


class Walk(NamedTuple):
  """How a point moves along the rows of an interval, in coefficients.

  start: (rows, y) -> the solver's state at the end where the walk begins.
  along: (predict, rows, state) -> the state at the other end.
  backward: whether it begins at the last row.
  """

  start: Callable[[Table, PyTree], State]
  along: Callable[[Predict, Table, State], State]
  backward: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segment:
  """Neighbouring intervals of a table that have equally many tokens and steps, or a part of one.

  ids: the tokens that move in each interval; the number of all tokens is padding.
  rows: the table's rows in each.
  known: how many tokens the cache holds before the first, padding included.
  starts: whether a walk forward, and one backward, enters an interval here; else it is inside one.
  context: the part of the cache that is attended to.
  keeps: whether later intervals need to know what is generated here.
  """

  ids: Int[AnyArray, '*m intervals n']
  rows: Float[AnyArray, '*m intervals rows k']
  known: Int[AnyArray, '*m']
  starts: Bool[AnyArray, '*m 2']
  context: int = dataclasses.field(metadata={'static': True})
  keeps: bool = dataclasses.field(metadata={'static': True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plan:
  """A table of groups that follow one another, cut for the walk.

  ids: all tokens in the order of the cache: those known from the first row on, and then interval by
    interval.
  given: how many are known from the first row on.
  """

  ids: Int[AnyArray, '*m n']
  segments: tuple[Segment, ...]
  given: int = dataclasses.field(metadata={'static': True})


def plan(table: Table, groups: Int[np.ndarray, ' T'], chunk: int | None = None) -> Plan:
  """The plan of a concrete table.

  groups: of each token. chunk: the most steps of a segment; by default any number.

  Raises ValueError if groups overlap in time: if they move at the same time and not alike, or one
  begins before another ends.
  """
  table = np.asarray(table)
  cut = list(_intervals(table))
  given = np.flatnonzero(np.isin(groups, np.flatnonzero(table[0] == 1)))
  ids = [np.flatnonzero(np.isin(groups, moving)) for moving, _ in cut]
  return _assemble(given, ids, [rows for _, rows in cut], chunk)


def follows(table: Table) -> bool:
  """Whether the groups of a concrete table follow one another, so that it has a `plan`."""
  try:
    return all(True for _ in _intervals(np.asarray(table)))
  except ValueError:
    return False


def plans(tables: Iterable[Table], groups: Int[np.ndarray, ' T']) -> Plan:
  """The plans of several tables in one, arrays stacked, for `jax.vmap`.

  Groups of unequal size are padded to the largest. Raises ValueError as `plan` does, and for tables
  with other numbers of intervals or steps in them, or other groups known from the first row on.
  """
  tables = [np.asarray(table) for table in tables]
  cut = [list(_intervals(table)) for table in tables]
  shapes = {tuple(len(rows) for _, rows in intervals) for intervals in cut}
  known = {tuple(np.flatnonzero(table[0] == 1)) for table in tables}
  if len(shapes) != 1 or len(known) != 1:
    raise ValueError(
      f'{len(tables)} tables must not differ in the rows of an interval, {sorted(shapes)}, or in '
      f'the groups known from the first row on, {sorted(known)}'
    )
  given = np.flatnonzero(np.isin(groups, list(*known)))
  ids = [[np.flatnonzero(np.isin(groups, moving)) for moving, _ in part] for part in cut]
  size = max(len(i) for part in ids for i in part)
  padded = [
    [np.pad(i, (0, size - len(i)), constant_values=len(groups)) for i in part] for part in ids
  ]
  made = [
    _assemble(given, part, [rows for _, rows in intervals], None)
    for part, intervals in zip(padded, cut, strict=True)
  ]
  return jax.tree.map(lambda *arrays: np.stack(arrays), *made)


def _intervals(table):
  """The groups that move and the rows, interval by interval, without rows that repeat."""
  table = table[[True, *np.any(np.diff(table, axis=0) != 0, axis=1)]]
  moves = np.diff(table, axis=0) != 0
  if not len(moves):
    return
  ends = [0, *(1 + np.flatnonzero(np.any(moves[1:] != moves[:-1], axis=1))), len(moves)]
  for first, last in itertools.pairwise(ends):
    moving, rows = np.flatnonzero(moves[first]), table[first : last + 1]
    of_moving, others = rows[:, moving], np.delete(rows[0], moving)
    alike = np.all(of_moving == of_moving[:, :1])
    if not alike or np.any(of_moving[[0, -1], 0] != [0, 1]) or np.any((others > 0) & (others < 1)):
      raise ValueError(
        f'groups overlap in time: rows {first} to {last} of the table move {moving.tolist()} from '
        f'{of_moving[0].tolist()} to {of_moving[-1].tolist()}; a cache takes one after another'
      )
    yield moving, rows


def _assemble(given, ids, rows, chunk):
  """The plan of intervals with these tokens and rows."""
  known = len(given) + np.cumsum([0, *map(len, ids)])
  most = known[-2] if ids else 0
  unit = max(-(-most // CONTEXTS), 1)
  contexts = np.minimum(-(-known[:-1] // unit) * unit, most)
  shapes = [(len(i), len(r), c) for i, r, c in zip(ids, rows, contexts, strict=True)]
  segments = []
  for (_, length, context), run in itertools.groupby(range(len(ids)), shapes.__getitem__):
    run = list(run)
    steps = length - 1
    pieces = sampling.parts(steps, chunk or steps)
    intervals = sampling.parts(len(run), max(chunk // steps, 1) if chunk else len(run))
    for part, piece in itertools.product(intervals, pieces):
      numbers = [run[i] for i in part]
      segments.append(
        Segment(
          np.stack([ids[i] for i in numbers]),
          np.stack([rows[i][piece[0] : piece[-1] + 2] for i in numbers]),
          np.array(known[numbers[0]], np.int32),
          np.array([piece is pieces[0], piece is pieces[-1]]),
          int(context),
          piece is pieces[-1] and numbers != [len(ids) - 1],
        )
      )
  return Plan(np.concatenate([given, *ids]).astype(np.int32), tuple(segments), len(given))


def empty(model: Model, plan: Plan, x: Data) -> PyTree:
  """The cache before the first row: room for all of the plan's tokens, with those given in x."""
  # If none is given, one is computed for the shape; it is overwritten before it is seen.
  given, size = model.encode(x, plan.ids[: max(plan.given, 1)]), len(plan.ids)
  room = jax.tree.map(lambda a: jnp.zeros((*a.shape[:2], size, a.shape[3]), a.dtype), given)
  return _write(room, given, 0)


def full(model: Model, plan: Plan, x: Data) -> PyTree:
  """The cache after the last row, of data x."""
  return model.encode(x, plan.ids)


def forward(
  model: Model, plan: Plan, segment: Segment, walk: Walk, state: State, cache: PyTree
) -> tuple[State, PyTree]:
  """The state and the cache after a segment of the plan, walked towards data."""

  def one(carry, interval):
    (state, cache), (known, ids, _) = carry, interval
    state = _along(model, plan, segment, walk, state, cache, interval)
    if segment.keeps:
      cache = _write(cache, model.encode(state.y, ids), known)
    return (state, cache), None

  return jax.lax.scan(one, (state, cache), _scanned(segment))[0]


def backward(
  model: Model, plan: Plan, segment: Segment, walk: Walk, state: State, cache: PyTree
) -> State:
  """The state before a segment of the plan, walked towards noise; the cache is `full`."""

  def one(state, interval):
    return _along(model, plan, segment, walk, state, cache, interval), None

  return jax.lax.scan(one, state, _scanned(segment), reverse=True)[0]


def _along(model, plan, segment, walk, state, cache, interval):
  """The state at the other end of an interval."""
  count, ids, rows = interval
  slots = np.arange(segment.context)
  known = jnp.where(slots < count, plan.ids[: segment.context], len(model.groups))
  predict = model.predict(jax.tree.map(lambda a: a[:, :, : segment.context], cache), known, ids)
  enters = segment.starts[int(walk.backward)]
  fresh = walk.start(rows, state.y)
  state = jax.tree.map(lambda new, old: jnp.where(enters, new, old), fresh, state)
  return walk.along(predict, rows, state)


def sample(
  model: Model, process: Process, plan: Plan, z: Data, solver: str | Solver = 'euler'
) -> Data:
  """As `sampling.sample`, along the table of the plan, with a solver that `to_data` takes."""
  y, walk = process.basis.analyze(z), to_data(process, solver)
  if not plan.segments:
    return z
  state, cache = walk.start(plan.segments[0].rows[0], y), empty(model, plan, y)
  for segment in plan.segments:
    state, cache = forward(model, plan, segment, walk, state, cache)
  return process.basis.synthesize(state.y)


def encode(
  model: Model, process: Process, plan: Plan, x: Data, solver: str | Solver = 'euler'
) -> Data:
  """As `sampling.encode`, along the table of the plan, with a solver that `to_data` takes."""
  y, walk = process.basis.analyze(x), to_noise(process, solver)
  return process.basis.synthesize(_to_noise(model, plan, walk, y, full(model, plan, y)).y)


def log_likelihood(
  model: Model,
  process: Process,
  plan: Plan,
  x: Data,
  probes: likelihood.Probes | None = None,
  solver: str | Solver = 'rk4',
) -> likelihood.Nats:
  """As `likelihood.log_likelihood`, along the table of the plan.

  Each term is the conditional log p(x_Sj | groups generated before), for any parameters.
  """
  y, walk = process.basis.analyze(x), to_noise_with_density(process, probes, solver)
  point = likelihood.PointAndLogDet(y, jnp.zeros((len(y), process.grouping.num_groups), y.dtype))
  end = _to_noise(model, plan, walk, point, full(model, plan, y))
  return likelihood.finish(process.of_coefficients, end)


def _to_noise(model, plan, walk, y, cache):
  if not plan.segments:
    return State(y)
  state = walk.start(plan.segments[-1].rows[-1], y)
  for segment in reversed(plan.segments):
    state = backward(model, plan, segment, walk, state, cache)
  return state


def to_data(process: Process, solver: str | Solver) -> Walk:
  """From the first row to the last. Raises ValueError for a solver with `first_evaluations`."""
  process, solver = process.of_coefficients, _checked(solver)
  return Walk(
    lambda rows, y: _start(process, solver, rows[0], y, len(y)),
    lambda predict, rows, state: sampling.walk(predict, process, rows, state, solver),
  )


def to_noise(process: Process, solver: str | Solver) -> Walk:
  """From the last row to the first. Raises ValueError for a solver with `first_evaluations`."""
  start, along, _ = to_data(process, solver)
  return Walk(
    lambda rows, y: start(rows[::-1], y),
    lambda predict, rows, state: along(predict, rows[::-1], state),
    backward=True,
  )


def to_noise_with_density(
  process: Process, probes: likelihood.Probes | None, solver: str | Solver
) -> Walk:
  """As `to_noise`, of a `likelihood.PointAndLogDet`."""
  process, solver = process.of_coefficients, likelihood.get_solver(solver)

  def along(predict, rows, state):
    return likelihood.walk(predict, process, rows, state, probes, solver)

  return Walk(
    lambda rows, point: _start(process, solver, rows[-1], point, len(point.x)),
    along,
    backward=True,
  )


def _start(process, solver, row, y, batch):
  # The solvers that are left start without a prediction.
  return solver.start(None, process, y, jnp.broadcast_to(row, (batch, row.shape[0])))


def _checked(solver):
  solver = get_solver(solver)
  if solver.first_evaluations:
    raise ValueError(
      f'solver {solver.name!r} also uses predictions of groups that do not move: a cache has none'
    )
  return solver


def _scanned(segment):
  """Tokens known before each interval, its own tokens, and its rows."""
  intervals, width = segment.ids.shape
  return segment.known + width * jnp.arange(intervals), segment.ids, segment.rows


def _write(cache, new, slot):
  def update(array, part):
    return jax.lax.dynamic_update_slice_in_dim(array, part.astype(array.dtype), slot, axis=2)

  return jax.tree.map(update, cache, new)
