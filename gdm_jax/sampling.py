"""Grouped sampling: walk a table of signal levels with one `lax.scan` (Eq. 9, 17).

Shapes: table [N + 1, k], z and x [batch, *grid, channels]; `predict(x_t, alpha[batch, k]) -> u` is
any callable. Another order, other intervals, other step counts are other tables for the same
compiled program: wrap the call in `jax.jit`, with tables and latents as arguments.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gdm_jax import solvers
from gdm_jax.process import Data, Process
from gdm_jax.solvers import Predict

Table = Float[Array, 'rows k']


def latents(seeds: Int[Array, ' batch'], shape: tuple[int, ...]) -> Data:
  """Noise [batch, *shape] with one seed per example: independent of the batch it is drawn in."""
  return jax.vmap(lambda seed: jax.random.normal(jax.random.key(seed), shape))(seeds)


def sample(predict: Predict, process: Process, table: Table, z: Data, solver='euler') -> Data:
  """Data generated from latents z."""
  return _walk(predict, process, table, z, solver)[0]


def encode(predict: Predict, process: Process, table: Table, x: Data, solver='euler') -> Data:
  """Latents of data x: the same table, walked from data to noise."""
  return _walk(predict, process, table[::-1], x, solver)[0]


def trajectory(
  predict: Predict, process: Process, table: Table, z: Data, solver='euler'
) -> Float[Array, 'rows batch *grid c']:
  """The state at every row of the table, from z to data."""
  _, states = _walk(predict, process, table, z, solver, keep=True)
  return jnp.concatenate([z[None], states])


def sweep(
  predict: Predict, process: Process, tables: Float[Array, 'm rows k'], z: Data, solver='euler'
) -> Float[Array, 'm batch *grid c']:
  """Data generated from the same latents z along each of M tables: one program, vmapped."""
  return jax.vmap(lambda table: sample(predict, process, table, z, solver))(tables)


def complete(
  predict: Predict,
  process: Process,
  table: Table,
  known: Data,
  groups: Int[Array, ' known'],
  z: Data,
  solver='euler',
) -> Data:
  """Data whose `groups` are those of `known`, the rest generated from z given them.

  The table must generate the given groups first; generation starts on the row where they are
  clean, so a concrete table costs only the remaining rows; a traced one is walked whole and is
  not checked. Raises ValueError where a concrete
  table has another group under way before the given ones are clean.
  """
  given = np.zeros(table.shape[-1], bool)
  given[np.asarray(groups, int)] = True
  if isinstance(table, jax.core.Tracer):
    rest = jnp.where(given, 1, table)
  else:
    rest = np.where(given, 1, table)
    clean = int(np.argmax(np.all(np.asarray(table)[:, given] == 1, axis=1)))
    if np.any(rest[clean][~given] > 0):
      raise ValueError(f'groups {np.flatnonzero(given).tolist()} are not the first of this table')
    rest = jnp.asarray(rest[clean:])
  start = process.replace(z, known, given)
  return sample(predict, process, rest, start, solver)


def _walk(predict, process, table, x, solver, keep=False):
  step = solvers.find(solver)

  def one(x, rows):
    alpha, next_alpha = (jnp.broadcast_to(row, (len(x), row.size)) for row in rows)
    x = step(predict, process, x, alpha, next_alpha)
    return x, x if keep else None

  return jax.lax.scan(one, x, (table[:-1], table[1:]))
