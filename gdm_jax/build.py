"""From a config to the pieces of a run, with every error named by its config key."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Integer
from ml_collections import ConfigDict

from gdm_jax import conditioning, schedule, solvers
from gdm_jax.basis import BASES, Basis
from gdm_jax.conditioning import Predictor
from gdm_jax.config import blaming, check, check_solver, get
from gdm_jax.data import augment, base, sources
from gdm_jax.models import NETWORKS, Network
from gdm_jax.path import PATHS
from gdm_jax.process import Process
from gdm_jax.runtime import memory, winograd
from gdm_jax.runtime.errors import ConfigError, DataError
from gdm_jax.schedule import Strategy
from gdm_jax.solvers import Solver
from gdm_jax.strategies import strategies_of

CONVOLUTIONS = {
  'auto': winograd.conv_general_dilated,
  'direct': jax.lax.conv_general_dilated,
}
"""By `machine.convolutions`."""


@dataclasses.dataclass(frozen=True)
class System:
  """What a config describes: the process, its training strategies by name, and the prediction."""

  process: Process
  strategies: dict[str, Strategy]
  predictor: Predictor


def system(config: ConfigDict) -> System:
  """The system of a config. Raises ConfigError."""
  check(config)
  _check_memory(config)
  *grid, _ = config.data.shape
  basis = _basis(config.basis, grid)
  refined, strategies = strategies_of(config, basis)
  process = Process(refined, basis, PATHS[config.path])
  predictor = Predictor(
    _network(config, process), process, config.model.space, config.model.precision
  )
  network = f'model.{config.model.name}'
  options = config.model.get(config.model.name, ConfigDict()).to_dict()
  with blaming(f'data.shape = {config.data.shape}, {network}', options):
    params = jax.eval_shape(predictor.init, jax.random.key(0))
  count = sum(x.size for x in jax.tree.leaves(params))
  memory.require(f'{network} = {options}: {count:,} parameters', 4 * count)
  return System(process, strategies, predictor)


def _check_memory(config):
  """Raises ConfigError if a batch, the groups' labels or a basis do not fit at all."""
  shape, d = config.data.shape, math.prod(config.data.shape)
  for key in ('train.batch', 'sampling.batch'):
    share = get(config, key) / jax.process_count()
    # Data, noise and the point between them, in float32.
    memory.require(f'{key} = {get(config, key):,}: a batch of {shape}', 3 * 4 * share * d)
  memory.require(f'data.shape = {shape}: the numbers of the groups', 4 * d)
  if config.basis.name != 'pixel':
    side = max(shape[:-1])
    memory.require(f'basis.name = {config.basis.name!r}: a matrix of {side:,} squared', 8 * side**2)


def _basis(c, grid) -> Basis:
  if c.name not in BASES:
    raise ConfigError(f'basis.name = {c.name!r}: there are {", ".join(BASES)}')
  options = c.get(c.name, ConfigDict()).to_dict()
  with blaming(f'basis.{c.name}', options):
    return BASES[c.name](grid, **options)


def _network(config, process) -> Network:
  c = config.model
  if c.name not in NETWORKS:
    raise ConfigError(f'model.name = {c.name!r}: there are {", ".join(NETWORKS)}')
  network = NETWORKS[c.name]
  fields = {field.name for field in dataclasses.fields(network)}
  if 'elements' in fields and not process.basis.is_pixel and c.space != 'frequency':
    raise ConfigError(
      f'model.space = {c.space!r}: model.name = {c.name} works on the elements of the groups, '
      f"which are coefficients under basis.name = {config.basis.name}; must be 'frequency'"
    )
  levels = conditioning.num_levels(network, process)
  options = {
    'out_channels': config.data.shape[-1],
    'num_classes': c.classes,
    'augment_dim': levels + (len(augment.LABELS) if config.data.augment else 0),
    'dtype': jnp.dtype(c.dtype),
    **c.get(c.name, ConfigDict()).to_dict(),
  }
  wanted = {
    'remat': lambda: config.machine.remat,
    'convolution': lambda: CONVOLUTIONS[config.machine.convolutions],
    'elements': lambda: conditioning.elements(process, config.data.shape[-1]),
    'mix': lambda: conditioning.mix(process.path),
  }
  return network(**options, **{name: wanted[name]() for name in fields & wanted.keys()})


def sampling_table(
  config: ConfigDict, system: System, known: Sequence[int] = ()
) -> Float[Array, 'rows k']:
  """The table that `config.sampling` describes, over the refined groups.

  known: groups of the strategy that must come first; an order that is free starts with them.
  Raises ConfigError.
  """
  c = config.sampling
  name, order = sampling_order(config, system.strategies, known)
  strategy = system.strategies[name]
  if c.cuts and (strategy.overlap or strategy.intervals):
    raise ConfigError(
      f'sampling.cuts = {c.cuts}: strategies.{name} has intervals that overlap, and along others '
      'the network would meet signal levels that it was not trained on; must be empty'
    )
  with blaming('sampling.cuts', c.cuts):
    generation = strategy.schedule(order, c.cuts or None)
  solver(config)
  with blaming('sampling.steps', c.steps):
    steps = c.steps[0] if len(c.steps) == 1 else c.steps
    table = system.process.table(generation, steps, c.rho)
  if config.train.times == 'discrete':
    _check_discrete(config, strategy, len(table) - 1)
  return table


def _check_discrete(config, strategy, steps):
  """Raises ConfigError if sampling asks the network for levels other than 0 and 1."""
  if steps != strategy.num_groups:
    raise ConfigError(
      f'sampling.steps = {config.sampling.steps}: train.times = discrete has taught the network '
      f'one step a group, {strategy.num_groups} in all; train.times = continuous allows more'
    )
  if config.sampling.solver != 'euler':
    raise ConfigError(
      f'sampling.solver = {config.sampling.solver!r}: train.times = discrete needs euler, which '
      'evaluates the network at the beginning of every step alone'
    )


def check_sampling(config: ConfigDict, system: System):
  """Raises ConfigError if `config.sampling` describes no table."""
  sampling_table(config, system)


def sampling_order(
  config: ConfigDict, strategies: dict[str, Strategy], known: Sequence[int] = ()
) -> tuple[str, tuple[int, ...]]:
  """The strategy that `config.sampling` names, and the order in which it generates its groups.

  known: as in `sampling_table`. Raises ConfigError.
  """
  c = config.sampling
  if c.strategy and c.strategy not in strategies:
    raise ConfigError(f'sampling.strategy = {c.strategy!r}: there are {", ".join(strategies)}')
  name = c.strategy or next(iter(strategies))
  strategy = strategies[name]
  groups = range(strategy.num_groups)
  order = c.order or strategy.order or (*known, *(g for g in groups if g not in known))
  if len(order) != strategy.num_groups:
    raise ConfigError(f'sampling.order = {order}: the strategy has {strategy.num_groups} groups')
  if c.order and strategy.order and c.order != strategy.order:
    raise ConfigError(
      f'sampling.order = {c.order}: the strategy was trained on {strategy.order} alone'
    )
  with blaming('sampling.order', order):
    schedule.sequential(order)
  if set(order[: len(known)]) != set(known):
    raise ConfigError(f'groups {known} do not come first in the order {order} of {name}')
  return name, tuple(order)


def sampling_guidance(config: ConfigDict, system: System) -> float | Float[np.ndarray, ' refined']:
  """`sampling.guidance`: one number, or one for every refined group. Raises ConfigError."""
  guidance = config.sampling.guidance
  if len(guidance) == 1:
    return float(guidance[0])
  name, order = sampling_order(config, system.strategies)
  if len(guidance) != len(order):
    raise ConfigError(
      f'sampling.guidance = {guidance}: must be one number, or one for each of the {len(order)} '
      f'groups of strategies.{name}, in the order of generation'
    )
  of_group = np.empty(len(order))
  of_group[list(order)] = guidance
  return of_group[system.strategies[name].indices]


def sampling_labels(
  config: ConfigDict, seeds: Integer[np.ndarray, ' n']
) -> Integer[np.ndarray, ' n']:
  """The class of each seed: `sampling.labels` cyclically, -1 for a model without classes."""
  choice = config.sampling.labels or tuple(range(config.model.classes)) or (-1,)
  return np.asarray(choice, np.int32)[np.asarray(seeds) % len(choice)]


def solver(config: ConfigDict, key: str = 'sampling.solver') -> Solver:
  """The solver that a key names, with its options in `config.sampling`. Raises ConfigError."""
  name = get(config, key)
  options = config.sampling.get(name, None)
  with blaming(key, repr(name)):
    found = solvers.get_solver(name, **(options.to_dict() if options else {}))
  check_solver(config, key, found)
  return found


def data_source(
  config: ConfigDict,
  split: str = 'data.split',
  memory_gib: float | None = None,
  check: bool = True,
) -> base.Source:
  """The data of `data.split`, or of the split that another key names if that is not empty.

  memory_gib: instead of `machine.memory_gib`; 0 for what is read only once. check: as in
  `sources.load`. Raises DataError.
  """
  c, wanted = config.data, split != 'data.split' and get(config, split)
  kept = config.machine.memory_gib if memory_gib is None else memory_gib
  kept = min(kept * 2**30, memory.host_memory() / 2)
  data_dir = config.machine.data_dir or None
  try:
    return sources.load(
      *(c.name, wanted or c.split, c.shape, data_dir, int(kept), c.skip_broken, check)
    )
  except DataError as error:
    if wanted:
      raise DataError(f'{split} = {wanted!r}: {error}') from None
    raise


def check_classes(config: ConfigDict, source: base.Source):
  """Raises ConfigError if the network's classes are not those of the data."""
  if config.model.classes not in (0, source.num_classes):
    raise ConfigError(
      f'model.classes = {config.model.classes}: {config.data.name} has {source.num_classes}; '
      'must be that, or 0 for a model that is given no labels'
    )


def check_devices(config: ConfigDict, count: int | None = None):
  """Raises ConfigError if the batch, or a part of it, does not divide over the devices.

  count: of devices, by default all.
  """
  devices, batch, c = count or jax.device_count(), config.train.batch, config.machine
  if devices % c.fsdp:
    raise ConfigError(f'machine.fsdp = {c.fsdp} does not divide {devices} devices')
  if batch % (devices * c.microbatches):
    parts = f' in each of machine.microbatches = {c.microbatches}' * (c.microbatches > 1)
    raise ConfigError(f'train.batch = {batch} does not divide over {devices} devices{parts}')


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
  """Adam with EDM's learning rate: a linear ramp-up and, if asked, a linear fall to zero.

  It depends on the step alone, so that lengthening a run does not change its beginning.
  """
  c = config.train

  def learning_rate(step):
    images = (step + 1) * float(c.batch)
    rate = c.learning_rate * jnp.minimum(images / max(c.ramp, 1), 1)
    return rate * jnp.maximum(1 - step * float(c.batch) / c.anneal, 0) if c.anneal else rate

  return optax.adam(learning_rate)
