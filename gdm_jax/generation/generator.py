"""Generation over all devices: from seeds to data, in pieces short enough to show progress."""

import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np
import tqdm
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from gdm_jax import sampling, solvers
from gdm_jax.build import System
from gdm_jax.runtime import sharding
from gdm_jax.solvers import Pair

PIECE = 16  # steps of a table per dispatched program: few enough to show progress and to stop


class Generator:
  """A model ready to generate: compiled once, then called with any seeds, tables and parameters.

  Image i depends on seed i (and its label) alone, not on the batch or the number of devices, up
  to rounding (or to the adaptive solver's tolerance: its steps suit the worst image of a batch).
  """

  def __init__(
    self,
    system: System,
    shape: tuple[int, ...],
    solver: str,
    mesh: Mesh,
    guidance: float = 1.0,
  ):
    split, everywhere = sharding.batch_sharded(mesh), sharding.replicated(mesh)
    process = system.process
    self._devices, self._solver = mesh.size, solvers.get_solver(solver)

    def predictor(params, labels):
      predict = functools.partial(system.predict, params)
      return sampling.guided(predict, labels, guidance)

    def start(params, rows, x, labels):
      return sampling.start(predictor(params, labels), process, rows, x, solver)

    def walk(params, rows, state, labels):
      return sampling.walk(predictor(params, labels), process, rows, state, solver)

    def compiled(function):
      shardings = (everywhere, everywhere, split, split)
      return jax.jit(function, in_shardings=shardings, out_shardings=split)

    self._latents = jax.jit(functools.partial(sampling.latents, shape=shape), out_shardings=split)
    self._given = jax.jit(
      functools.partial(sampling.given, process), static_argnums=1, out_shardings=split
    )
    self._start, self._walk = compiled(start), compiled(walk)
    self._spread = jax.jit(lambda x: x, out_shardings=split)
    self._gather = jax.jit(lambda x: x, out_shardings=everywhere)

  def states(
    self,
    params: dict,
    table: Float[Array, 'rows k'],
    seeds: Int[np.ndarray, ' batch'],
    labels: Int[np.ndarray, ' batch'] | None = None,
    known: Float[np.ndarray, 'batch *grid c'] | None = None,
    groups: Sequence[int] = (),
    piece: int = PIECE,
  ) -> Iterator[Float[Array, 'padded *grid c']]:
    """Every image where it starts, then after each piece of the table; the last one is the data.

    They stay where they are, split over the devices: the first of them are the seeds', any others
    are there for the devices to have as many each. `gather` brings them here.

    known, groups: data whose groups are given, so that only the remaining rows are walked
    (`sampling.complete`). labels: classes, -1 for none.
    """
    count = len(seeds)
    labels = np.full(count, -1) if labels is None else labels

    whole = self._whole(count)
    labels = self._spread(_resize(labels, whole).astype(np.int32))
    x = self._latents(_resize(seeds, whole).astype(np.uint32))
    if known is not None:
      x = self._given(_resize(known, whole), tuple(groups), x)
      table = sampling.remaining(table, groups)
    yield x
    state = None
    for rows in pieces(table, piece):
      state = state or self._start(params, rows, x, labels)
      state = self._walk(params, rows, state, labels)
      yield state.x

  def images(
    self, params: dict, table: Float[Array, 'rows k'], seeds: Int[np.ndarray, ' batch'], **options
  ) -> Float[np.ndarray, 'batch *grid c']:
    """Data of the seeds; options as for `states`."""
    for x in self.states(params, table, seeds, **options):
      final = x
    return self.gather(final, len(seeds))

  def stream(
    self,
    params: dict,
    table: Float[Array, 'rows k'],
    seeds: Int[np.ndarray, ' n'],
    labels: Int[np.ndarray, ' n'],
    batch: int,
    text: str = '',
  ) -> Iterator[tuple[Int[np.ndarray, ' some'], Float[Array, 'padded *grid c']]]:
    """Batch by batch the seeds and their data (as in `states`), behind a bar named `text`."""
    batch = min(batch, len(seeds))
    labels = dict(zip(seeds.tolist(), labels.tolist(), strict=True))
    count = len(pieces(table))
    with tqdm.tqdm(
      total=len(seeds), desc=text, unit=' images', unit_scale=True, disable=None, leave=not text
    ) as bar:
      for some in np.split(seeds, range(batch, len(seeds), batch)) if batch else ():
        full = np.resize(some, batch)  # the last batch too, so that one program serves all
        given = np.array([labels[seed] for seed in full.tolist()])
        states = self.states(params, table, full, given)
        x = next(states)  # the latents
        for x in states:
          jax.block_until_ready(x)
          bar.update(len(some) / count)
        yield some, x

  def encode(
    self,
    params: dict,
    table: Float[Array, 'rows k'],
    x: Float[np.ndarray, 'n *grid c'],
    batch: int,
    text: str = 'encoding',
  ) -> Float[np.ndarray, 'n *grid c'] | Pair:
    """Latents of data, `batch` at once, on every process (`sampling.encode`); labels are hidden."""
    states = self._along(params, np.asarray(table)[::-1], x, batch, text)
    return Pair(states.x, states.memory[0]) if self._solver.reversible else states.x

  def decode(
    self,
    params: dict,
    table: Float[Array, 'rows k'],
    z: Float[np.ndarray, 'n *grid c'] | Pair,
    batch: int,
    text: str = 'decoding',
  ) -> Float[np.ndarray, 'n *grid c']:
    """Data of latents, `batch` at once, on every process (`sampling.sample`); labels are hidden."""
    return self._along(params, table, z, batch, text).x

  def _along(self, params, table, x, batch, text):
    """The states at the end of a table, batch after batch behind a progress bar."""
    count, runs, found = len(jax.tree.leaves(x)[0]), pieces(table), []
    batch = self._whole(min(batch, count))
    labels = self._spread(np.full(batch, -1, np.int32))
    with tqdm.tqdm(total=count, desc=text, unit=' images', disable=None, leave=False) as bar:
      for first in range(0, count, batch):
        size = min(batch, count - first)  # the last batch is filled up: one program serves all
        part = jax.tree.map(lambda a, i=first: _resize(a[i : i + batch], batch), x)
        state = self._start(params, runs[0], part, labels)
        for rows in runs:
          state = jax.block_until_ready(self._walk(params, rows, state, labels))
          bar.update(size / len(runs))
        found.append(jax.tree.map(lambda a, n=size: self.gather(a, n), state))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)

  def _whole(self, count):
    """That many, or so many more that every device has equally many."""
    return -(-count // self._devices) * self._devices

  def gather(self, x: Float[Array, 'padded *grid c'], count: int) -> np.ndarray:
    """The first images of all devices, on every process."""
    return np.asarray(self._gather(x))[:count]


def _resize(x, count):
  """The rows of an array, over again where there are not as many."""
  return np.resize(x, (count, *np.shape(x)[1:]))


def pieces(table: Float[Array, 'rows k'], most: int = PIECE) -> list[Float[Array, 'piece k']]:
  """The table cut into runs of at most that many steps, neighbours sharing a row.

  The runs are equally long where that does not make them short, since each length is compiled.
  """
  table = np.asarray(table)
  steps = len(table) - 1
  if not steps:
    return []
  size = max(n for n in range(1, most + 1) if steps % n == 0)
  count = steps // size if 2 * size > most else -(-steps // most)
  return [table[run[0] : run[-1] + 2] for run in np.array_split(np.arange(steps), count)]
