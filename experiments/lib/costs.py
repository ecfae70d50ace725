"""Costs of groups and of whole orders on real examples, kept one by one in values.csv."""

import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jaxtyping import Float, Int

from experiments.lib.study import Model
from gdm_jax import build, caching, conditionals, likelihood, ordering
from gdm_jax.config import blaming
from gdm_jax.data.units import from_uint8
from gdm_jax.evaluation.cells import Cells
from gdm_jax.generation.cached import can_cache
from gdm_jax.runtime import sharding
from gdm_jax.runtime.batching import padded_batches
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.schedule import Strategy

COSTS = ('loss', 'bound', 'nll', 'error')
"""Of generating a group after others, lower is better (`conditionals`): the squared error of Eq. 8,
the same weighted to bound the negative log-likelihood, that by the ODE, and the solver's error."""

MODEL = ('model', 'checkpoint', 'parameters', 'strategy', 'data', 'split')
KEYS = (*MODEL, 'of', 'how', 'examples', 'cell')
VALUES = ('mean', 'error', 'each')

AT_ONCE = 32  # cells that one call of a program measures, one after another
REFERENCE = 32  # RK4 steps that the error of a solver is measured against

Values = Float[np.ndarray, 'sets k n']
Order = tuple[int, ...]


class Costs:
  """What groups and orders of one strategy of a model cost; values.csv keeps what was measured.

  levels: of the comb for the squared errors; steps: of a group, for likelihoods and errors.
  Likelihoods are by `likelihood.solver` with `likelihood.probes`, errors those of
  `sampling.solver`; examples are of `likelihood.split`. Every cell is measured on the same examples
  with the same noise.
  """

  def __init__(self, model: Model, strategy: str, file: pathlib.Path, levels: int, steps: int):
    """Raises ConfigError, and DataError for a split that does not exist."""
    c = self._config = model.config
    if c.train.times == 'discrete':
      raise ConfigError(
        "train.times = 'discrete': the model knows no levels between, on which costs are measured"
      )
    self._model, self._levels, self._steps = model, levels, steps
    self.strategy: Strategy = model.system.strategies[strategy]
    self.k = self.strategy.num_groups
    with blaming('likelihood.solver', repr(c.likelihood.solver)):
      self._solver = likelihood.get_solver(build.solver(c, 'likelihood.solver'))
    self._sampler = build.solver(c)
    self.source = build.data_source(c, 'likelihood.split', memory_gib=0)
    build.check_classes(c, self.source)
    self.key = {
      'model': model.name,
      'checkpoint': str(model.checkpoint.step),
      'parameters': model.checkpoint.fingerprint,
      'strategy': strategy,
      'data': c.data.name,
      'split': c.likelihood.split or c.data.split,
    }
    self._programs: dict[tuple[str, ...], Callable] = {}
    self._cells = Cells(file, KEYS, VALUES)
    self._index = {tuple(row[name] for name in KEYS): row for row in self._cells.rows}

  @property
  def sizes(self) -> Int[np.ndarray, ' k']:
    """The elements of each group."""
    refined = self._model.system.process.grouping.of_elements
    labels = np.asarray(self.strategy.indices)[np.broadcast_to(refined, self._config.data.shape)]
    return np.bincount(labels.ravel())

  def how(self, of: str) -> str:
    """How a cost is measured."""
    c = self._config.likelihood
    if of in ('loss', 'bound'):
      how = f'{self._levels} levels'
    elif of == 'error':
      how = f'{self._sampler.name}, {self._steps} steps a group'
    else:
      trace = f'{c.probes} probe' + 's' * (c.probes > 1) if c.probes else 'the exact trace'
      how = f'{self._solver.name}, {self._steps} shrinking steps a group, {trace}'
    return how + (f', seed {c.seed}' if c.seed else '')

  def of_pairs(
    self,
    of: str,
    numbers: range,
    pairs: Iterable[tuple[int, int]] | None = None,
  ) -> Values:
    """A cost of every group j after every set A, or of some pairs, on examples by number.

    Laid out as by `ordering.tabulate`; 0 where nothing was measured. pairs: (A, j), A as a number.
    Raises ConfigError for more groups than can be searched.
    """
    if pairs is None and self.k > ordering.MOST:
      raise ConfigError(
        f'strategy {self.key["strategy"]} has {self.k} groups; all sets are searched of at most '
        f'{ordering.MOST}'
      )
    pairs = list(ordering.pairs(self.k) if pairs is None else pairs)
    names = {f'{_joined(ordering.members(a))}>{j}': (a, j) for a, j in pairs}
    together = ('loss', 'bound') if of in ('loss', 'bound') else (of,)

    def measured(cells):
      known = np.array([[a >> i & 1 for i in range(self.k)] for a, _ in cells], bool)
      return self._pairs(together, numbers, known, np.array([j for _, j in cells]))

    rows = self._measure(together, numbers, names, measured)[of]
    values = np.zeros((2**self.k, self.k, len(numbers)))
    for name, (a, j) in names.items():
      values[a, j] = rows[name]
    return values

  def along(self, of: str, order: Order, numbers: range) -> Float[np.ndarray, 'k n']:
    """A cost of each group of an order after those before it, on examples by number."""
    before = ordering.sets_before(np.array([order]))[0]
    places = list(zip(map(int, before), order, strict=True))
    values = self.of_pairs(of, numbers, places)
    return np.stack([values[place] for place in places])

  def of_orders(self, orders: Sequence[Order], numbers: range) -> Float[np.ndarray, 'm n']:
    """-log p(x) along whole orders, in nats, on examples by number."""
    names = {_joined(order): order for order in orders}

    def measured(cells):
      parts = []
      for x, label, seeds, valid in self._batches(numbers):
        some = [self._along(order, x, label, seeds)[:valid] for order in cells]
        parts.append(np.stack(some))
      return [np.concatenate(parts, axis=1)]

    rows = self._measure(('order',), numbers, names, measured, at_once=1)['order']
    return np.stack([rows[name] for name in names])

  def _measure(
    self,
    together: Sequence[str],
    numbers: range,
    names: Mapping[str, object],
    measured: Callable[[Sequence], Sequence[Float[np.ndarray, 'm n']]],
    at_once: int = AT_ONCE,
  ) -> dict[str, dict[str, np.ndarray]]:
    """The values of cells by name for each of the costs that are measured together."""
    examples = f'{numbers.start}-{numbers.stop - 1}'
    if numbers.stop > len(self.source):
      raise ConfigError(
        f'examples {examples} of {self.key["data"]}, {self.key["split"]}, wanted, which has '
        f'{len(self.source)}'
      )

    def key(of, name):
      how = {'of': of, 'how': self.how(of), 'examples': examples, 'cell': name}
      return {**self.key, **how}

    def row(of, name):
      return self._index.get(tuple(key(of, name)[column] for column in KEYS))

    missing = [name for name in names if any(row(of, name) is None for of in together)]
    with tqdm.tqdm(
      total=len(names), initial=len(names) - len(missing), desc=together[-1], disable=None
    ) as bar:
      for first in range(0, len(missing), at_once):
        part = missing[first : first + at_once]
        # As many always, so that one program serves the last ones too.
        cells = [names[part[i % len(part)]] for i in range(at_once)]
        for of, values in zip(together, measured(cells), strict=True):
          for name, each in zip(part, values, strict=False):
            if row(of, name) is None:
              new = {**key(of, name), **_described(each)}
              self._cells.add(new)
              self._index[tuple(new[column] for column in KEYS)] = new
        bar.update(len(part))
    return {
      of: {name: np.array(row(of, name)['each'].split(), float) for name in names}
      for of in together
    }

  def _pairs(self, together, numbers, known, group):
    """The values of pairs, [m, n] for each of the costs."""
    parts = []
    for x, label, seeds, valid in self._batches(numbers):
      params = self._model.checkpoint.params
      values = self._program(together)(params, x, label, seeds, known, group)
      parts.append([np.asarray(v, np.float64)[:, :valid] for v in values])
    return [np.concatenate(of, axis=1) for of in zip(*parts, strict=True)]

  def _program(self, together: tuple[str, ...]):
    """f(params, x, label, seeds, known [m, k], group [m]) -> ([m, n] for each cost), jitted."""
    if together in self._programs:
      return self._programs[together]
    c = self._config
    indices = np.asarray(self.strategy.indices)
    taus, weights = conditionals.comb(self._levels)
    shape, probes = c.data.shape, c.likelihood.probes
    sizes = jnp.asarray(self.sizes, float)

    def costs(predict, process, x, seeds, known, moving, size):
      arguments = predict, process, x
      if together == ('loss', 'bound'):
        errors, noises = conditionals.squares(*arguments, seeds, known, moving, taus)
        return (
          conditionals.loss(errors, weights),
          conditionals.bound(errors, noises, size, taus, weights),
        )
      z = conditionals.noise(seeds, 0, shape)
      if together == ('error',):
        groups = known, moving, self._steps
        return (conditionals.solver_error(*arguments, z, *groups, self._sampler, REFERENCE),)
      directions = likelihood.rademacher(seeds, probes, shape) if probes else None
      groups = known, moving, self._steps
      return (conditionals.nll(*arguments, z, *groups, directions, self._solver),)

    def program(params, x, label, seeds, known, group):
      process, x, predict_of = self._context(params, self._data(x, seeds), label)

      def one(pair):
        known, group = pair[0][indices], pair[1]
        predict = predict_of(known, group)
        return costs(predict, process, x, seeds, known, group == indices, sizes[group])

      return jax.lax.map(one, (known, group))

    self._programs[together] = self._jitted(program, 2)
    return self._programs[together]

  def _context(self, params, x, label):
    """The process, data in it, and the prediction of a group given others.

    A network that keeps known groups as context computes all clean tokens once, for all pairs.
    """
    system = self._model.system
    if not can_cache(system, self._solver):
      predict = system.predictor.bind(params, label)
      return system.process, x, lambda known, group: predict
    network = system.predictor.bind_cached(params, label)
    groups, y = network.groups, system.process.basis.analyze(x)
    cache = network.encode(y, np.arange(len(groups)))
    own = np.asarray(self.strategy.indices)[groups]
    tokens = [np.flatnonzero(own == j) for j in range(self.k)]
    width = max(map(len, tokens))
    ids = np.stack([np.pad(i, (0, width - len(i)), constant_values=len(groups)) for i in tokens])

    def predict_of(known, group):
      context = jnp.where(known[groups], np.arange(len(groups)), len(groups))
      return network.predict(cache, context, jnp.asarray(ids)[group])

    return system.process.of_coefficients, y, predict_of

  def table(self, order: Order) -> Float[np.ndarray, 'rows k']:
    """The rows of signal levels of an order, over the refined groups."""
    indices, process = np.asarray(self.strategy.indices), self._model.system.process
    parts = [np.zeros((1, len(indices)))]
    for i, j in enumerate(order):
      groups = np.isin(indices, order[:i]), indices == j
      rows = conditionals.rows(process, *groups, self._steps, conditionals.SHRINKING)
      parts.append(np.asarray(rows)[1:])
    return np.concatenate(parts).astype(np.float32)

  def _along(self, order, x, label, seeds):
    """-log p(x) of a batch along an order, [n]."""
    system, params = self._model.system, self._model.checkpoint.params
    table = self.table(order)
    if can_cache(system, self._solver):
      table = caching.plan(table, system.predictor.network.tokens.groups)
    return np.asarray(self._walk(params, x, label, seeds, table), np.float64)

  @functools.cached_property
  def _walk(self):
    """f(params, x, label, seeds, table or plan) -> [n], jitted."""
    c, system = self._config, self._model.system
    process, solver, probes = system.process, self._solver, c.likelihood.probes
    cached = can_cache(system, solver)

    def walk(params, x, label, seeds, table):
      x = self._data(x, seeds)
      directions = likelihood.rademacher(seeds, probes, c.data.shape) if probes else None
      function = caching.log_likelihood if cached else likelihood.log_likelihood
      bind = system.predictor.bind_cached if cached else system.predictor.bind
      return -function(bind(params, label), process, table, x, directions, solver).sum(-1)

    return self._jitted(walk, 1)

  def _data(self, x, seeds):
    x = from_uint8(x)
    width = self.source.bin_width
    return likelihood.dequantise(x, width, seeds) if width else x

  def _jitted(self, function, others):
    mesh = self._model.mesh
    whole, batch = sharding.replicated(mesh), sharding.batch_sharded(mesh)
    shardings = (whole, *(batch,) * 3, *(whole,) * others)
    return jax.jit(function, in_shardings=shardings, out_shardings=whole)

  def _batches(self, numbers):
    """Batch by batch x, the label that the network is given, seeds, and how many count."""
    c = self._config
    for batch, valid in padded_batches(len(numbers), c.sampling.batch, self._model.mesh.size):
      chosen = np.asarray(numbers)[batch]
      examples = self.source[chosen]
      label = examples['label'] if c.model.classes else np.full(len(batch), -1, np.int32)
      yield examples['x'], label, (c.likelihood.seed + chosen).astype(np.uint32), valid


def _described(each: Float[np.ndarray, ' n']) -> dict[str, str]:
  """VALUES of a cell."""
  error = each.std(ddof=1) / len(each) ** 0.5
  texts = ' '.join(f'{value:.6g}' for value in each)
  return {'mean': f'{each.mean():.6g}', 'error': f'{error:.3g}', 'each': texts}


def _joined(groups: Iterable[int]) -> str:
  return '-'.join(map(str, groups))
