"""Schedules: when each group diffuses (Eq. 10), and the tables of signal levels made from them.

Time lives here and nowhere else. Diffusion runs from t = 0 (data) to t = 1 (noise); generation
runs back, so the group generated first holds the latest interval.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from gdm_jax.typing import AnyArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Schedule:
  """The interval (start_j, end_j] in which group j goes from data to noise."""

  start: Float[AnyArray, '*batch k']
  end: Float[AnyArray, '*batch k']

  def over(self, indices: Int[AnyArray, ' refined']) -> 'Schedule':
    """The same schedule over refined groups, indices[j] being the old group of new group j.

    `grouping.refine` gives the indices.
    """
    return Schedule(self.start[..., indices], self.end[..., indices])


@dataclasses.dataclass(frozen=True)
class Strategy:
  """How training draws a schedule: an order over one grouping, seen through a refinement.

  order: order[i] is the group generated i-th; None draws one uniformly for every example.
  cuts: the k-1 interior boundaries of the intervals, ascending; None makes them equal.
  indices: `indices[j]` is this strategy's group of refined group j (`grouping.refine`).
  overlap: how far the intervals are widened (`overlapping`).
  intervals: instead of cuts and overlap, the interval of every group; `order` is then theirs.
  """

  order: tuple[int, ...] | None
  cuts: tuple[float, ...] | None
  indices: Int[np.ndarray, ' refined']
  overlap: float = 0.0
  intervals: Schedule | None = None

  @property
  def num_groups(self) -> int:
    """k of this strategy's own grouping."""
    return int(np.max(self.indices)) + 1

  def refined(self, groups: Sequence[int]) -> tuple[int, ...]:
    """The refined groups that these groups of the strategy consist of."""
    return tuple(np.flatnonzero(np.isin(self.indices, groups)).tolist())

  @property
  def overlaps(self) -> bool:
    """Whether groups move at the same time without sharing their interval."""
    with jax.ensure_compile_time_eval():
      plan = self.schedule(range(self.num_groups))
    start, end = np.asarray(plan.start), np.asarray(plan.end)
    meet = (start[:, None] < end) & (start < end[:, None])
    same = (start[:, None] == start) & (end[:, None] == end)
    return bool(np.any(meet & ~same))

  @property
  def fewest_steps(self) -> int:
    """Those of a table: one for each interval between neighbouring boundaries."""
    return int(np.count_nonzero(_intervals(self.schedule(range(self.num_groups)))[1]))

  def schedule(
    self,
    order: Int[AnyArray, '*batch k'] | Sequence,
    cuts: Float[AnyArray, ' boundaries'] | Sequence[float] | None = None,
  ) -> Schedule:
    """The schedule of an order over the refined groups; cuts: other ones than the strategy's.

    Strategies of given intervals have only one.
    """
    if self.intervals is None:
      cuts = self.cuts if cuts is None else cuts
      return overlapping(order, self.overlap, cuts).over(self.indices)
    plan, batch = self.intervals.over(self.indices), np.shape(order)[:-1]
    return jax.tree.map(lambda times: jnp.broadcast_to(times, (*batch, times.size)), plan)


def sequential(
  order: Int[AnyArray, '*batch k'] | Sequence,
  cuts: Float[AnyArray, ' boundaries'] | Sequence[float] | None = None,
) -> Schedule:
  """One group after another: order[i] is generated i-th, in intervals that tile (0, 1] (Eq. 10).

  cuts: the k-1 interior boundaries in time, ascending; by default all intervals are equally long.
  Note that the first boundary ends the interval of the group generated last. `order` may be
  batched, and both may be traced. Raises ValueError if a concrete order is no permutation of 0..k-1
  or the cuts do not ascend strictly within (0, 1).
  """
  return overlapping(order, 0.0, cuts)


def overlapping(
  order: Int[AnyArray, '*batch k'] | Sequence,
  overlap: float,
  cuts: Float[AnyArray, ' boundaries'] | Sequence[float] | None = None,
) -> Schedule:
  """As `sequential`, with every interval (s, e] widened to ((1 - overlap) s, e + overlap (1 - e)].

  overlap: 0 is one group after another, 1 all at once, the path of k = 1; in between a group begins
    and ends no later than those behind it in the order. With equal intervals all are as long, and
    (w - 1) / (k + w - 1) lets w groups move at a time, each 1 / w of its way behind the one before:
    a rolling window.

  Raises ValueError as `sequential` does, and for an overlap outside [0, 1].
  """
  if not 0 <= overlap <= 1:
    raise ValueError(f'overlap {overlap} must be 0, one group after another, to 1, all at once')
  traced = isinstance(order, jax.core.Tracer)
  order = order if traced else np.asarray(order)
  k = order.shape[-1]
  if not traced and np.any(np.sort(order) != np.arange(k)):
    raise ValueError(f'order {order.tolist()} is no permutation of 0..{k - 1}')
  boundaries = _boundaries(k, cuts)
  start, end = boundaries[:-1], boundaries[1:]
  if overlap:
    start, end = (1 - overlap) * start, end + overlap * (1 - end)
    if isinstance(start, np.ndarray):  # ends that meet starts do so exactly: no step between them
      start, end = np.round(start, 12), np.round(end, 12)
  if traced:
    start, end, interval = jnp.asarray(start), jnp.asarray(end), k - 1 - jnp.argsort(order)
  else:
    interval = k - 1 - np.argsort(order)  # of group j, counted in time
  return Schedule(jnp.asarray(start[interval]), jnp.asarray(end[interval]))


def explicit(start: Sequence[float], end: Sequence[float]) -> Schedule:
  """The schedule of these intervals (start[j], end[j]] of group j, which may overlap.

  Raises ValueError unless each begins before it ends, and together they cover (0, 1].
  """
  start, end = np.asarray(start, float), np.asarray(end, float)
  if start.shape != end.shape or start.ndim != 1 or not len(start):
    raise ValueError(f'{start.size} starts and {end.size} ends must be one of each per group')
  bad = ~((start >= 0) & (start < end) & (end <= 1))
  if bad.any():
    j = int(np.argmax(bad))
    raise ValueError(f'group {j} has ({start[j]:g}, {end[j]:g}]: must be 0 <= start < end <= 1')
  reached = 0.0
  for first, last in [*sorted(zip(start.tolist(), end.tolist(), strict=True)), (1.0, 1.0)]:
    if first > reached:
      raise ValueError(f'no group moves from {reached:g} to {first:g}')
    reached = max(reached, last)
  return Schedule(jnp.asarray(start), jnp.asarray(end))


def order_of(schedule: Schedule) -> tuple[int, ...]:
  """The order in which groups begin to be generated, those that end first before others."""
  return tuple(np.lexsort((-np.asarray(schedule.start), -np.asarray(schedule.end))).tolist())


def _boundaries(k, cuts):
  if cuts is None:
    # numpy divides; XLA would multiply by 1 / k, and a boundary l / k must be exactly that (C.1).
    return np.arange(k + 1) / k
  if isinstance(cuts, jax.core.Tracer):
    return jnp.concatenate([jnp.zeros(1), jnp.asarray(cuts, float), jnp.ones(1)])
  boundaries = np.array([0, *cuts, 1], float)
  if len(cuts) != k - 1 or not np.all(np.diff(boundaries) > 0):
    raise ValueError(
      f'cuts {tuple(map(float, cuts))} must be {k - 1} times ascending strictly in (0, 1)'
    )
  return boundaries


def coefficients(
  schedule: Schedule, t: Float[AnyArray, '*batch'] | float
) -> Float[AnyArray, '*batch k']:
  """Signal levels alpha_j(t) (Eq. 10): 1 up to start_j, then linear, 0 from end_j on."""
  t, start, end = jnp.asarray(t)[..., None], schedule.start, schedule.end
  return jnp.where(t <= start, 1.0, jnp.where(t >= end, 0.0, (end - t) / (end - start)))


def rates(schedule: Schedule, t: Float[AnyArray, '*batch'] | float) -> Float[AnyArray, '*batch k']:
  """alpha'_j(t), per unit of time: -1 / (end_j - start_j) within (start_j, end_j], else 0."""
  t, start, end = jnp.asarray(t)[..., None], schedule.start, schedule.end
  return jnp.where((start < t) & (t <= end), -1 / (end - start), 0.0)


def table(
  schedule: Schedule, steps: int | Sequence[int], rho: float = 1.0
) -> Float[AnyArray, 'rows k']:
  """The signal levels that generation walks through: N + 1 rows, from all 0 to all 1.

  Every boundary of an interval is a row, so no step straddles one.

  steps: the total N, shared out by interval length (largest remainder, at least one each, ties to
    the group generated first), or one number per group in generation order. If intervals overlap,
    a "group" is the time between neighbouring boundaries.
  rho: positive; an interval's rows are even in (1 - alpha)^(1 / rho) (Karras et al. 2022, Eq. 5).

  Traceable in the schedule if `steps` is a total, hence `jax.vmap(table, (0, None))` for many
  orders. Raises ValueError for a batch of schedules, and if a concrete schedule has more intervals
  than steps or not one number per interval. For a curved path see `Process.table`.
  """
  bounds, lengths = _intervals_to_walk(schedule, steps)
  if np.ndim(steps) == 0:
    total, counts = int(steps), _share(lengths, int(steps))
  else:
    if isinstance(lengths, jax.core.Tracer):
      raise ValueError('steps per group need a concrete schedule; pass their total instead')
    intervals = np.flatnonzero(lengths)
    if len(steps) != len(intervals) or min(steps) < 1:
      raise ValueError(f'steps = {tuple(steps)} must be {len(intervals)} numbers, each at least 1')
    total, counts = int(sum(steps)), np.zeros(len(lengths), int)
    counts[intervals] = steps
  return _rows(schedule, bounds, lengths, counts, total, rho)


def equal_shares(schedule: Schedule, steps: int) -> tuple[int, ...]:
  """The steps of each interval, in generation order, that `table` makes of a total.

  Raises ValueError as `table` does.
  """
  _, lengths = _intervals_to_walk(schedule, steps)
  return tuple(np.asarray(_share(lengths, int(steps)))[np.flatnonzero(lengths)].tolist())


def _intervals_to_walk(schedule, steps):
  """The boundaries and lengths of one schedule's intervals, for which the steps must suffice."""
  if schedule.start.ndim != 1:
    raise ValueError(f'table: a batch of schedules, {schedule.start.shape}; use jax.vmap')
  bounds, lengths = _intervals(schedule)
  is_total = np.ndim(steps) == 0 and not isinstance(lengths, jax.core.Tracer)
  if is_total and (count := np.count_nonzero(lengths)) > steps:
    raise ValueError(f'steps = {steps} are fewer than the {count} intervals to walk through')
  return bounds, lengths


@jax.jit
def _intervals(schedule):
  """Boundaries in the order of generation and the lengths between them, 0 if nothing moves."""
  start, end = schedule.start, schedule.end
  bounds = jnp.sort(jnp.concatenate([start, end]))[::-1]
  middle = (bounds[:-1] + bounds[1:]) / 2
  active = (start < middle[:, None]) & (middle[:, None] < end)
  return bounds, jnp.where(active.any(axis=1), bounds[:-1] - bounds[1:], 0)


@functools.partial(jax.jit, static_argnames='steps')
def _share(lengths, steps):
  """Whole steps in proportion to lengths: one to each interval, the rest by largest deficit."""
  quota = steps * lengths / lengths.sum()

  def give_one(_, counts):
    unserved = (counts == 0) & (lengths > 0)
    deficit = jnp.where(unserved, jnp.inf, quota - counts)
    # The first within a thousandth of a step, so that rounding does not break ties.
    return counts.at[jnp.argmax(deficit >= deficit.max() - 1e-3)].add(1)

  return jax.lax.fori_loop(0, steps, give_one, jnp.zeros(len(lengths), int))


@functools.partial(jax.jit, static_argnames=('total', 'rho'))
def _rows(schedule, bounds, lengths, counts, total, rho):
  row = jnp.arange(total + 1)
  last = jnp.cumsum(counts)  # the row on which each interval ends
  interval = jnp.searchsorted(last, row, side='right').clip(max=len(lengths) - 1)
  into = (row - last[interval] + counts[interval]) / jnp.maximum(counts[interval], 1)
  into = into if rho == 1 else 1 - (1 - into) ** rho
  t = bounds[interval] - into.astype(bounds.dtype) * lengths[interval]
  # The last boundary is met only up to rounding.
  return coefficients(schedule, t).at[-1].set(1)


def of_table(table: Float[np.ndarray, 'rows k']) -> Schedule:
  """A schedule in which every group is generated where it becomes clean in a table, in one step."""
  steps, last = len(table) - 1, np.argmax(np.asarray(table) == 1, axis=0)
  return Schedule(1 - last / steps, 1 - (last - 1) / steps)


def training_times(
  key: PRNGKeyArray, batch: int, low_discrepancy: bool = True
) -> Float[AnyArray, ' batch']:
  """Training times in (0, 1], one per example of the global batch.

  low_discrepancy: one uniform offset and a regular comb, each time still uniform by itself
  (Kingma et al. 2021, Appendix I.1); otherwise independent draws.
  """
  if low_discrepancy:
    return 1 - (jax.random.uniform(key) + jnp.arange(batch) / batch) % 1
  return 1 - jax.random.uniform(key, (batch,))


def times_of_groups(
  key: PRNGKeyArray, schedule: Schedule, low_discrepancy: bool = True
) -> Float[AnyArray, 'batch k']:
  """A time for every group, in its own interval; groups that share an interval share the time.

  The place within the interval is drawn as `training_times` are, for each group by itself.
  """
  batch, k = schedule.start.shape
  draw = functools.partial(training_times, batch=batch, low_discrepancy=low_discrepancy)
  place = jax.vmap(draw, out_axes=1)(jax.random.split(key, k))
  together = schedule.start[:, :, None] == schedule.start[:, None, :]
  place = jnp.take_along_axis(place, jnp.argmax(together, axis=2), axis=1)
  # Exact at the end, where the level must be 0.
  return schedule.end - (1 - place) * (schedule.end - schedule.start)


def of_each_group(schedule: Schedule) -> Schedule:
  """The schedules [..., k, 1] of single groups, for functions of a time per group."""
  return jax.tree.map(lambda bounds: bounds[..., None], schedule)


def earlier(schedule: Schedule) -> Bool[AnyArray, '*batch k k']:
  """[..., g, h]: whether group h is generated before group g begins."""
  return schedule.start[..., None, :] >= schedule.end[..., :, None]


def interval_ends(schedule: Schedule, t: Float[AnyArray, '*batch']) -> Float[AnyArray, '*batch']:
  """The discrete times of Appendix C.1: the end of the interval that each t in (0, 1] lies in.

  Of k equal intervals these are l / k, each as likely if t is uniform. There the group under way
  is all noise, and every other is all noise or all data.
  """
  later = jnp.where(schedule.end >= jnp.asarray(t)[..., None], schedule.end, jnp.inf)
  return later.min(-1)


def draw(key: PRNGKeyArray, strategies: Sequence[Strategy], batch: int) -> Schedule:
  """A training schedule per example, [batch, refined k]: a uniform choice of the strategies."""
  choice_key, *keys = jax.random.split(key, len(strategies) + 1)
  options = [_draw(k, strategy, batch) for k, strategy in zip(keys, strategies, strict=True)]
  if len(options) == 1:
    return options[0]
  choice = jax.random.randint(choice_key, (batch,), 0, len(options))
  return jax.tree.map(lambda *levels: jnp.stack(levels)[choice, jnp.arange(batch)], *options)


def _draw(key, strategy, batch):
  k = strategy.num_groups
  if strategy.order is None:
    order = jax.vmap(lambda key: jax.random.permutation(key, k))(jax.random.split(key, batch))
  else:
    order = np.broadcast_to(np.asarray(strategy.order), (batch, k))
  return strategy.schedule(order)
