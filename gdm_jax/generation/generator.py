"""Generation over all devices: from seeds to data, in chunks short enough to show progress."""

import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
import tqdm
from jax.sharding import Mesh
from jaxtyping import Float, Integer
from ml_collections import ConfigDict

from gdm_jax import build, caching, sampling
from gdm_jax.generation.cached import CachedWalks, can_cache
from gdm_jax.runtime import sharding
from gdm_jax.runtime.batching import padded, padded_batches, round_up
from gdm_jax.solvers import ReversiblePair, Solver, get_solver
from gdm_jax.typing import AnyArray

CHUNK_STEPS = 16  # steps of a table per dispatched program: few enough to show progress and to stop

Rows = Float[AnyArray, 'rows k']
Seeds = Integer[np.ndarray, ' n']
Images = Float[np.ndarray, 'n *grid c']


class Generator:
  """A model ready to generate: compiled once, then called with any seeds, tables and parameters.

  Image i depends on seed i (and its label) alone, not on the batch or the number of devices, up
  to rounding (or to the adaptive solver's tolerance: its steps suit the worst image of a batch).
  Batches are padded to equally many images per device. A groupwise network walks with a cache
  (`caching`), unless it is told not to, `caching` refuses the solver, or the groups of the table
  overlap in time; the images are the same.
  """

  def __init__(
    self,
    system: build.System,
    shape: tuple[int, ...],
    solver: str | Solver,
    mesh: Mesh,
    guidance: float | Float[np.ndarray, ' k'] = 1.0,
    cache: bool = True,
  ):
    """shape: of one example, (*grid, channels); guidance: of labelled images, as for
    `Predictor.bind`; cache: whether to use one if the network has it."""
    batch_sharded, replicated = sharding.batch_sharded(mesh), sharding.replicated(mesh)
    process, predictor = system.process, system.predictor
    self._devices, self._solver = mesh.size, get_solver(solver)
    self._cached = None
    if cache and can_cache(system, self._solver):
      self._cached = CachedWalks(system, self._solver, mesh, guidance)

    def start(params, rows, x, labels):
      predict = predictor.bind(params, labels, guidance)
      return sampling.start(predict, process, rows, x, solver)

    def walk(params, rows, state, labels):
      predict = predictor.bind(params, labels, guidance)
      return sampling.walk(predict, process, rows, state, solver)

    def jitted(function):
      shardings = (replicated, replicated, batch_sharded, batch_sharded)
      return jax.jit(
        function,
        in_shardings=shardings,
        out_shardings=batch_sharded,
        compiler_options=sharding.compiler_options(mesh),
      )

    self._latents = jax.jit(
      functools.partial(sampling.latents, shape=shape), out_shardings=batch_sharded
    )
    self._given = jax.jit(
      functools.partial(sampling.given, process), static_argnums=1, out_shardings=batch_sharded
    )
    self._start, self._walk = jitted(start), jitted(walk)
    self._shard = jax.jit(lambda x: x, out_shardings=batch_sharded)
    self._replicate = jax.jit(lambda x: x, out_shardings=replicated)

  @classmethod
  def from_config(cls, config: ConfigDict, system: build.System, mesh: Mesh) -> 'Generator':
    """With the solver, guidance and cache of `config.sampling`. Raises ConfigError."""
    solver, guidance = build.solver(config), build.sampling_guidance(config, system)
    return cls(system, config.data.shape, solver, mesh, guidance, config.sampling.cache)

  def iterate(
    self,
    params: dict,
    table: Rows,
    seeds: Seeds,
    labels: Seeds | None = None,
    known: Images | None = None,
    groups: Sequence[int] = (),
    chunk_steps: int = CHUNK_STEPS,
    z: Float[AnyArray, 'n *grid c'] | ReversiblePair | None = None,
  ) -> Iterator[Float[AnyArray, 'padded *grid c']]:
    """The latents, then the images after each chunk of the table; the last are the data.

    They stay sharded over the devices and padded: the first len(seeds) rows are the requested
    images (`to_host`).

    known, groups: data whose groups are given, so that only the remaining rows are walked
    (`sampling.complete`). labels: classes, -1 for none; None is none at all. z: latents in place of
    the seeds' own, of which only the number counts then.
    """
    indices = self._padded(seeds)
    labels = np.full(len(seeds), -1) if labels is None else labels
    labels = self._shard(labels[indices].astype(np.int32))
    if z is None:
      x = self._latents(seeds[indices].astype(np.uint32))
    else:
      x = self._shard(jax.tree.map(lambda a: a[indices], z))
    if known is not None:
      x = self._given(known[indices], tuple(groups), x)
      table = sampling.remaining(table, groups)
    yield x.x if isinstance(x, ReversiblePair) else x
    for state in self._states(params, table, x, labels, chunk_steps):
      yield state.y

  def latents(self, seeds: Seeds) -> Images:
    """The latents of seeds alone, on every process."""
    return self.to_host(self._latents(seeds[self._padded(seeds)].astype(np.uint32)), len(seeds))

  def _padded(self, seeds):
    return padded(len(seeds), round_up(len(seeds), self._devices))

  def count(self, table: Rows, chunk_steps: int = CHUNK_STEPS) -> int:
    """How many chunks a table is walked in."""
    cached = self._cached and caching.follows(table)
    return len(
      self._cached.plan(table, chunk_steps).segments if cached else chunks(table, chunk_steps)
    )

  def _states(self, params, table, x, labels, chunk_steps=CHUNK_STEPS, backward=False):
    """The state after each chunk of a table."""
    if self._cached and caching.follows(table):
      walk = self._cached.backward if backward else self._cached.forward
      yield from walk(params, self._cached.plan(table, chunk_steps), x, labels)
      return
    state, table = None, np.asarray(table)
    for rows in chunks(table[::-1] if backward else table, chunk_steps):
      state = state or self._start(params, rows, x, labels)
      state = self._walk(params, rows, state, labels)
      yield state

  def sample(self, params: dict, table: Rows, seeds: Seeds, **options) -> Images:
    """Data of the seeds; options as for `iterate`."""
    for x in self.iterate(params, table, seeds, **options):
      final = x
    return self.to_host(final, len(seeds))

  def sample_batches(
    self,
    params: dict,
    table: Rows,
    seeds: Seeds,
    labels: Seeds,
    batch: int,
    description: str = '',
    latents: Callable[[Seeds, Seeds], Images | ReversiblePair] | None = None,
  ) -> Iterator[tuple[Seeds, Float[AnyArray, 'padded *grid c']]]:
    """Batch by batch the seeds and their data (as in `iterate`), under a progress bar.

    latents: of seeds and their labels, in place of the seeds' own.
    """
    count = self.count(table)
    with tqdm.tqdm(
      total=len(seeds),
      desc=description,
      unit=' images',
      unit_scale=True,
      disable=None,
      leave=not description,
    ) as bar:
      for indices, valid in padded_batches(len(seeds), batch, self._devices):
        z = latents and latents(seeds[indices], labels[indices])
        states = self.iterate(params, table, seeds[indices], labels[indices], z=z)
        x = next(states)  # the latents
        for x in states:
          jax.block_until_ready(x)
          bar.update(valid / count)
        yield seeds[indices[:valid]], x

  def encode(
    self,
    params: dict,
    table: Rows,
    x: Images,
    batch: int,
    description: str = 'encoding',
    label: int = -1,
  ) -> Images | ReversiblePair:
    """Latents of data, on every process (`sampling.encode`), under one label; -1 is none."""
    if not len(x):
      return ReversiblePair(x, x) if self._solver.reversible else x
    states = self._walk_batches(params, table, x, batch, description, label, backward=True)
    if self._solver.reversible:
      return ReversiblePair(states.y, states.memory[0])
    return states.y

  def decode(
    self,
    params: dict,
    table: Rows,
    z: Images | ReversiblePair,
    batch: int,
    description: str = 'decoding',
    label: int = -1,
  ) -> Images:
    """Data of latents, on every process (`sampling.sample`), under one label; -1 is none."""
    if not len(first := jax.tree.leaves(z)[0]):
      return first
    return self._walk_batches(params, table, z, batch, description, label).y

  def _walk_batches(self, params, table, x, batch, description, label, backward=False):
    """The states at the end of a table, on the host."""
    count, parts, ends = len(jax.tree.leaves(x)[0]), self.count(table), []
    with tqdm.tqdm(total=count, desc=description, unit=' images', disable=None, leave=False) as bar:
      for indices, valid in padded_batches(count, batch, self._devices):
        labels = self._shard(np.full(len(indices), label, np.int32))
        part = jax.tree.map(lambda a, rows=indices: a[rows], x)
        for state in self._states(params, table, part, labels, backward=backward):
          jax.block_until_ready(state)
          bar.update(valid / parts)
        ends.append(jax.tree.map(lambda a, n=valid: self.to_host(a, n), state))
    return jax.tree.map(lambda *batches: np.concatenate(batches), *ends)

  def to_host(self, x: Float[AnyArray, 'padded *grid c'], count: int) -> Images:
    """The first `count` images of all devices, on every process."""
    return np.asarray(self._replicate(x))[:count]


def chunks(table: Rows, most: int = CHUNK_STEPS) -> list[Float[np.ndarray, '_ k']]:
  """The table in chunks of at most `most` steps (`sampling.parts`), neighbours sharing a row."""
  table = np.asarray(table)
  return [table[part[0] : part[-1] + 2] for part in sampling.parts(len(table) - 1, most)]
