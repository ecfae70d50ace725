"""Grouped sampling: walk a table of signal levels with one `lax.scan` (Eq. 9, 17).

Shapes: table [N + 1, k], z and x [batch, *grid, channels]; `predict(x_t, alpha[batch, k]) -> u` is
any callable; a solver is a name in `solvers.SOLVERS` or a `solvers.Solver`. Another order, other
intervals, other step counts are other tables for the same compiled program: wrap the call in
`jax.jit`, with tables and latents as arguments.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Integer

from gdm_jax import solvers
from gdm_jax.process import Data, Process
from gdm_jax.solvers import Predict, ReversiblePair, Solver, State
from gdm_jax.typing import AnyArray, Scalar

Seeds = Integer[AnyArray, ' batch']
Known = Sequence[int] | Int[AnyArray, ' known']
Table = Float[AnyArray, 'rows k']


def latents(seeds: Seeds, shape: tuple[int, ...]) -> Data:
  """Noise [batch, *shape] with one seed per example, so it does not depend on the batch."""
  return jax.vmap(lambda seed: jax.random.normal(jax.random.key(seed), shape))(seeds)


def sample(
  predict: Predict,
  process: Process,
  table: Table,
  z: Data | ReversiblePair,
  solver: str | Solver = 'euler',
) -> Data:
  """Data generated from latents z."""
  return walk(predict, process, table, start(predict, process, table, z, solver), solver).y


def encode(
  predict: Predict, process: Process, table: Table, x: Data, solver: str | Solver = 'euler'
) -> Data | ReversiblePair:
  """Latents of data x: the same table, walked from data to noise.

  A reversible solver returns the `solvers.ReversiblePair` of z and its companion; given both,
  `sample` with that solver retraces its steps and returns x to float rounding.
  """
  back = table[::-1]
  state = walk(predict, process, back, start(predict, process, back, x, solver), solver)
  if solvers.get_solver(solver).reversible:
    return ReversiblePair(state.y, state.memory[0])
  return state.y


def trajectory(
  predict: Predict,
  process: Process,
  table: Table,
  z: Data | ReversiblePair,
  solver: str | Solver = 'euler',
) -> Float[AnyArray, 'rows batch *grid c']:
  """The point at every row of the table, from z to data."""
  state = start(predict, process, table, z, solver)
  _, points = _scan(predict, process, table, state, solver, keep=True)
  return jnp.concatenate([state.y[None], points])


def sweep(
  predict: Predict,
  process: Process,
  tables: Float[AnyArray, 'm rows k'],
  z: Data,
  solver: str | Solver = 'euler',
  at_once: int | None = None,
) -> Float[AnyArray, 'm batch *grid c']:
  """Data generated from the same latents z along each of M tables, in one compiled program.

  at_once: how many tables are walked side by side (`vmap`); by default all of them, which needs
  memory for M batches.
  """

  def one(table):
    return sample(predict, process, table, z, solver)

  return jax.lax.map(one, tables, batch_size=at_once) if at_once else jax.vmap(one)(tables)


def complete(
  predict: Predict,
  process: Process,
  table: Table,
  known: Data,
  groups: Known,
  z: Data,
  solver: str | Solver = 'euler',
) -> Data:
  """Data whose `groups` are those of `known`, the rest generated from z given them.

  Raises ValueError if a concrete table does not generate the given groups first; a traced one is
  not checked (`remaining`).
  """
  rest = remaining(table, groups)
  return sample(predict, process, rest, given(process, known, groups, z), solver)


def remaining(table: Table, groups: Known) -> Float[AnyArray, 'rest k']:
  """The part of a table that is left to walk when the data of `groups` are known.

  Both kinds give the same data. A concrete table loses the rows before the given groups are clean,
  which saves evaluations, and raises ValueError if another group is under way before that. Of a
  traced one the number of rows is static: it keeps them all, with the given groups clean.
  """
  known = np.zeros(table.shape[-1], bool)
  known[np.asarray(groups, int)] = True
  if isinstance(table, jax.core.Tracer):
    return jnp.where(known, 1, table)
  rest = np.where(known, 1, table)
  clean = int(np.argmax(np.all(np.asarray(table)[:, known] == 1, axis=1)))
  if np.any(rest[clean][~known] > 0):
    raise ValueError(f'groups {np.flatnonzero(known).tolist()} are not the first of this table')
  return jnp.asarray(rest[clean:])


def given(process: Process, known: Data, groups: Known, z: Data) -> Data:
  """The start of completion: `known` in its groups, noise z in the others."""
  in_groups = np.isin(np.arange(process.grouping.num_groups), np.asarray(groups, int))
  return process.replace(z, known, in_groups)


def guided(
  predict: Callable[..., Data],
  label: Seeds | None,
  scale: Scalar | Float[AnyArray, ' k'] = 1.0,
  process: Process | None = None,
) -> Predict:
  """`predict(x_t, alpha)` of `predict(x_t, alpha, label)`: classifier-free guidance.

  u_none + scale (u_label - u_none) (Ho and Salimans 2022, Eq. 6; u is affine in the score at
  given x_t and alpha, so mixing predictions mixes scores).

  label: -1 is none. scale: one number, or one for every group of `process`, then required. A scale
  of 1 is the model as trained, and costs one evaluation where any other costs two.
  """
  if np.all(np.asarray(scale) == 1):
    return lambda x_t, alpha: predict(x_t, alpha, label)

  def mixed(x_t, alpha):
    u = predict(jnp.repeat(x_t, 2, axis=0), jnp.repeat(alpha, 2, axis=0), guided_labels(label))
    difference = u[::2] - u[1::2]
    if np.ndim(scale):
      per_element = process.coefficient_map(jnp.asarray(scale, u.dtype))
      difference = process.basis.synthesize(per_element * process.basis.analyze(difference))
      return u[1::2] + difference
    return u[1::2] + scale * difference

  return mixed


def guided_labels(label: Seeds) -> Integer[AnyArray, ' twice']:
  """Every label and -1 side by side, so that a batch split over devices stays where it is."""
  return jnp.stack([label, jnp.full_like(label, -1)], axis=1).ravel()


def parts(count: int, most: int) -> list[Int[np.ndarray, ' _']]:
  """The numbers 0 to count - 1 in runs of at most `most`.

  They are equally long unless that makes them short, since each length of a walk is compiled.
  """
  if not count:
    return []
  size = max(n for n in range(1, most + 1) if count % n == 0)
  runs = count // size if 2 * size > most else -(-count // most)
  return np.array_split(np.arange(count), runs)


def start(
  predict: Predict, process: Process, table: Table, x: Data | ReversiblePair, solver: str | Solver
) -> State:
  """The solver's state on the first row of a table."""
  points = x.x if isinstance(x, ReversiblePair) else x
  alpha = jnp.broadcast_to(table[0], (points.shape[0], table.shape[-1]))
  return solvers.get_solver(solver).start(predict, process, x, alpha)


def walk(
  predict: Predict, process: Process, table: Table, state: State, solver: str | Solver
) -> State:
  """The state on the last row of a table; a long table may be walked chunk by chunk."""
  return _scan(predict, process, table, state, solver)[0]


def _scan(predict, process, table, state, solver, keep=False):
  step = solvers.get_solver(solver).step

  def one(state, rows):
    alpha, next_alpha = (jnp.broadcast_to(row, (state.y.shape[0], row.size)) for row in rows)
    state = step(predict, process, state, alpha, next_alpha)
    return state, state.y if keep else None

  return jax.lax.scan(one, state, (table[:-1], table[1:]))
