"""Requests of the page to pictures: latents put together group by group, and walked to data."""

import collections
import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Integer, UInt8
from ml_collections import ConfigDict

from gdm_jax import build, figures, sampling
from gdm_jax.build import System
from gdm_jax.config import is_guided
from gdm_jax.data.units import LEVEL, from_uint8, to_uint8
from gdm_jax.explore.pictures import Pictures
from gdm_jax.explore.request import Request, RequestError, choose
from gdm_jax.generation import composing
from gdm_jax.generation.cached import can_cache
from gdm_jax.generation.composing import OWN, Latent
from gdm_jax.generation.generator import CHUNK_STEPS, Generator
from gdm_jax.generation.samples import check_finite
from gdm_jax.runtime import sharding
from gdm_jax.runtime.errors import ConfigError

FRAMES = 32  # pictures of a walk that are sent, at most
EVERY_SECONDS = 0.3  # between pictures of a draft
KEPT = 8  # solvers and scales of guidance whose programs are kept
ENCODED = 32  # latents of pictures that are kept
SHOWN_RANKS = 8  # of each band, whose values the page is told


class Frame(NamedTuple):
  """The pictures on a row of the table, in floats; last: whether they are the data."""

  row: int
  x: Float[np.ndarray, 'n *grid c']
  last: bool


class Plan(NamedTuple):
  """A request that was found good: the config that describes it, its tables and its generator.

  table: of the rows that are walked. whole: the table along which pictures are encoded.
  """

  config: ConfigDict
  table: Float[np.ndarray, 'rows k']
  whole: Float[np.ndarray, 'all k']
  generator: Generator
  chunk: int


class Explorer:
  """A model that answers requests; one at a time, which its caller sees to."""

  def __init__(
    self,
    config: ConfigDict,
    system: System,
    params: dict,
    pictures: Pictures,
  ):
    """config: its `sampling` is what the page begins with."""
    self.config, self.system, self.pictures = config, system, pictures
    self.variants = config.explore.variants
    self._params, self._mesh, self._planning = params, sharding.mesh(), threading.Lock()
    self._generators: collections.OrderedDict[tuple, Generator] = collections.OrderedDict()
    self._encoded: collections.OrderedDict[tuple, Latent] = collections.OrderedDict()
    self._composer, self._compiled = composing.Composer(system), set[tuple]()
    self._table = functools.lru_cache(maxsize=64)(self._make_table)

  def plan(self, request: Request) -> Plan:
    """What a request needs. Raises ConfigError and RequestError if the model cannot do it."""
    # The sampling that it describes, which must be one that --mode=sample accepts.
    r, strategies = request, self.system.strategies
    choose('strategy', r.strategy, strategies)
    k, known = strategies[r.strategy].num_groups, r.known.groups if r.known else ()
    if len(r.picks) != k:
      raise RequestError(f'groups: {len(r.picks)} of them, and {r.strategy} has {k}')
    if r.known and not (set(known) < set(range(k)) and 0 < len(set(known)) == len(known)):
      raise RequestError(f'known.groups = {list(known)} must be some of 0 to {k - 1}, and not all')
    self._check_label(r)
    config, table, whole = self._table(r.strategy, r.order, r.steps, r.solver, r.guidance, known)

    # What it is made from.
    try:
      composing.check_ranks(self.system, r.ranks, self.config.data.shape[-1])
    except ValueError as error:
      raise RequestError(f'ranks: {error}') from None
    for source in {source for pick in r.picks for source in (pick.start, pick.end)}:
      if isinstance(source, str) and not (r.known and source == OWN):
        self.pictures.get(source)
    solver = build.solver(config)
    cached = self.config.sampling.cache and can_cache(self.system, solver)
    # Step by step one program walks any number of steps, and each can be the last.
    chunk = CHUNK_STEPS if cached else 1
    with self._planning:
      return Plan(config, table, whole, self._generator(config), chunk)

  def _check_label(self, r: Request):
    classes = self.config.model.classes
    if r.label >= classes:
      raise RequestError(f'label = {r.label}: this model has {classes} classes')
    if r.guidance != 1 and (r.label < 0 or not self.config.train.label_dropout):
      raise RequestError(f'guidance = {r.guidance:g} needs a label, some hidden in training')

  def _make_table(self, strategy, order, steps, solver, guidance, known):
    config = self.config.copy_and_resolve_references()
    config.sampling.update(
      strategy=strategy, order=order, steps=(steps,), solver=solver, guidance=(guidance,)
    )
    table = whole = np.asarray(build.sampling_table(config, self.system, known))
    if known:
      table = sampling.remaining(whole, self.system.strategies[strategy].refined(known))
    return config, np.asarray(table), whole

  def _generator(self, config) -> Generator:
    c, solver = config.sampling, build.solver(config)
    key = solver.name, c.guidance
    if key not in self._generators:
      while len(self._generators) >= KEPT:
        old, _ = self._generators.popitem(last=False)
        self._compiled = {compiled for compiled in self._compiled if compiled[0] != old}
      scale = float(c.guidance[0]) if is_guided(config) else 1.0
      made = Generator(self.system, self.config.data.shape, solver, self._mesh, scale, c.cache)
      self._generators[key] = made
    self._generators.move_to_end(key)
    return self._generators[key]

  def is_new(self, plan: Plan, count: int) -> bool:
    """Whether a program must be compiled for so many pictures; asked once for each."""
    c = plan.config.sampling
    key = (build.solver(plan.config).name, c.guidance), count, plan.chunk > 1 and len(plan.table)
    new = key not in self._compiled
    self._compiled.add(key)
    return new

  def frames(self, plan: Plan, request: Request) -> Iterator[Frame]:
    """The pictures of a request, from the latents to the data; of drafts only some between.

    Raises DivergedError for data that are not finite.
    """
    r, first = request, request.known.seed if request.known else 0
    seeds = np.arange(first, first + r.count)
    if composing.sources(r.picks) == (OWN,) and not r.ranks:
      return self._walk(plan, r, seeds)
    return self._walk(plan, r, seeds, self.latents(plan, r))

  def some(
    self, plan: Plan, requests: list[Request], still: Callable[[], bool]
  ) -> UInt8[np.ndarray, 'n h w c'] | None:
    """The data of up to `explore.variants` requests that differ in their latents alone.

    None if they are not wanted any more.
    """
    found, size = [self.latents(plan, request) for request in requests], self.variants
    found += [found[-1]] * (size - len(found))  # one size is one program
    first = requests[0]._replace(draft=True)
    for frame in self._walk(plan, first, np.zeros(size, int), composing.stacked(found)):
      if frame.last:
        return to_uint8(frame.x[: len(requests)])
      if not still():
        break
    return None

  def _walk(self, plan, request, seeds: Integer[np.ndarray, ' n'], z=None):
    generator, steps, known = plan.generator, len(plan.table) - 1, request.known
    options: dict[str, Any] = {}
    if known:
      options['known'] = np.repeat(from_uint8(known.pixels)[None], len(seeds), axis=0)
      options['groups'] = self.system.strategies[request.strategy].refined(known.groups)
    pieces = max(generator.count(plan.table, plan.chunk), 1)
    stride, sent = -(-pieces // FRAMES), time.monotonic()
    states = generator.iterate(
      self._params,
      plan.table,
      seeds,
      labels=np.full(len(seeds), request.label),
      chunk_steps=plan.chunk,
      z=z,
      **options,
    )
    for i, x in enumerate(states):
      jax.block_until_ready(x)
      late, last = time.monotonic() - sent > EVERY_SECONDS, i == pieces
      if last or (late if request.draft else i % stride == 0):
        x = generator.to_host(x, len(seeds))
        if last:
          check_finite(x, lambda n: f'picture {n}')
        sent = time.monotonic()
        yield Frame(round(i * steps / pieces), x, last)
      else:
        yield Frame(round(i * steps / pieces), np.zeros((0, *self.config.data.shape)), False)

  def latents(self, plan: Plan, request: Request) -> Latent:
    """The latents of a request: of each group what its pick says, then the ranks that are set."""
    r, reversible = request, build.solver(plan.config).reversible and not request.known
    reversible = reversible and bool(composing.pictures(r.picks))

    def variant(v):
      def latent(source):
        source = r.known.seed + v if source == OWN and r.known else source
        return composing.paired(self._source(source, plan, r), reversible)

      return self._composer(r.strategy, r.picks, r.ranks, latent)

    return composing.stacked(map(variant, range(r.count)))

  def _source(self, source, plan, r) -> Latent:
    """The latent of a seed, or of a picture under the request's label, which is kept."""
    if isinstance(source, int):
      return plan.generator.latents(np.array([source]))
    key = source, r.solver, r.guidance, r.label, plan.whole.tobytes()
    if key not in self._encoded:
      x = from_uint8(self.pictures.get(source).pixels)[None]
      self._encoded[key] = plan.generator.encode(self._params, plan.whole, x, 1, label=r.label)
      if len(self._encoded) > ENCODED:
        self._encoded.popitem(last=False)
    return self._encoded[key]

  def result(self, plan: Plan, request: Request, x: Float[np.ndarray, 'n *grid c']) -> dict:
    """What else the page is told about the data of a request."""
    answer: dict[str, Any] = {'bars': self.bars(plan, request), 'steps': len(plan.table) - 1}
    sources = composing.sources(request.picks)
    pure = not request.known and not request.ranks and len(sources) == 1
    if pure and isinstance(sources[0], str):
      picture = from_uint8(self.pictures.get(sources[0]).pixels)
      answer['returns'] = float(np.abs(x[0] - picture).max() / LEVEL)
    if not (OWN in sources or request.draft or self.system.process.basis.is_pixel):
      answer['ranks'] = self._values(plan, request)
    return answer

  def _values(self, plan, request) -> dict[str, float]:
    """The values of the lowest ranks of each band, first channel."""
    z = composing.paired(self.latents(plan, request), reversible=False)
    basis = self.system.process.basis
    c, ranks = np.asarray(basis.analyze(z))[0, ..., 0].ravel(), np.asarray(basis.ranks).ravel()
    value = dict(zip(ranks.tolist(), c.tolist(), strict=True))
    return {
      str(rank): round(value[rank], 4)
      for band in self.lowest_ranks(request.strategy)
      for rank in band
    }

  def lowest_ranks(self, strategy: str) -> list[list[int]]:
    """The lowest ranks of each group of a strategy; of pixels none."""
    basis = self.system.process.basis
    if basis.is_pixel:
      return [[] for _ in self._composer.masks[strategy]]
    ranks = np.asarray(basis.ranks)
    # Of the first channel.
    inside = [np.asarray(mask)[..., 0] for mask in self._composer.masks[strategy]]
    return [np.sort(ranks[mask])[:SHOWN_RANKS].tolist() for mask in inside]

  def bars(self, plan: Plan, request: Request) -> list[list[int]]:
    """The rows between which each group moves; [0, 0] for one that is given."""
    indices = self.system.strategies[request.strategy].indices
    found = []
    for group in range(len(request.picks)):
      level = plan.table[:, np.argmax(indices == group)]
      first, last = np.argmax(level > 0) - 1, np.argmax(level == 1)
      found.append([int(max(first, 0)), int(last)])
    return found

  def warm_up(self, request: Request):
    """Compiles what a request needs. Raises ConfigError if it cannot be answered."""
    plan = self.plan(request)
    self.is_new(plan, 1)
    for _ in self.frames(plan, request):
      pass


def check_pictures(config: ConfigDict):
  """Raises ConfigError unless the data are pictures."""
  shape = config.data.shape
  if not figures.is_image(shape):
    raise ConfigError(
      f'data.shape = {shape}: --mode=explore shows pictures, (height, width, 1 or 3)'
    )
