"""From a config to the pieces of a run, with every error named by its config key."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from gdm_jax import basis, grouping, losses, path, schedule, solvers
from gdm_jax.config import blaming, check, get
from gdm_jax.data import base, sources
from gdm_jax.data.augment import LABELS
from gdm_jax.models import ddpmpp, mlp
from gdm_jax.process import Data, Process
from gdm_jax.runtime.errors import ConfigError, DataError
from gdm_jax.schedule import Strategy

NOISE_LABELS = 1000  # DDPM++'s embedding of the noise level was made for 0..1000


@dataclasses.dataclass(frozen=True)
class System:
  """What a config describes: the process, its training strategies by name, and the network."""

  process: Process
  strategies: dict[str, Strategy]
  network: nn.Module
  predict: Callable[..., Data]
  """predict(params, x_t, alpha, label=None, augment=None, train=False, rngs=None) -> u; label int32
  [batch], or -1 where it is hidden; augment [batch, 9], None where x is as the data are."""

  def init(self, key) -> dict:
    """Parameters drawn from `key`."""
    grid, channels = self.process.grouping.shape, self.network.out_channels
    x = jnp.zeros((1, *grid, channels + 1))
    condition = None
    if self.network.augment_dim:
      condition = jnp.zeros((1, self.network.augment_dim))
    return self.network.init(key, x, jnp.zeros(1), augment_label=condition)['params']


def system(config: ConfigDict) -> System:
  """The system of a config. Raises ConfigError."""
  check(config)
  *grid, channels = config.data.shape
  base = _basis(config.basis, grid)
  groupings = {
    name: _grouping(f'strategies.{name}', s, grid, base) for name, s in config.strategies.items()
  }
  if not groupings:
    raise ConfigError('strategies is empty; a run needs at least one')
  refined, indices = grouping.refine(*groupings.values())
  process = Process(refined, base, path.PATHS[config.path])
  strategies = {
    name: _strategy(f'strategies.{name}', config.strategies[name], index)
    for name, index in zip(groupings, indices, strict=True)
  }
  levels = refined.num_groups if config.basis.name != 'pixel' else 0
  conditions = levels + (len(LABELS) if config.data.augment else 0)
  network = _network(config.model, grid, channels, conditions, config.train.remat)
  predict = _predictor(network, process, config.model.space, levels)
  built = System(process, strategies, network, predict)
  with blaming('model', config.model.to_dict()):
    jax.eval_shape(built.init, jax.random.key(0))
  return built


def generation(
  config: ConfigDict, strategies: dict[str, Strategy], known: Sequence[int] = ()
) -> Float[Array, 'rows k']:
  """The table that `config.sampling` describes, over the refined groups.

  known: groups of the strategy that must come first; an order that is free starts with them.
  Raises ConfigError.
  """
  c = config.sampling
  name, order = order_of(config, strategies, known)
  chosen = strategies[name]
  with blaming('sampling.cuts', c.cuts):
    plan = schedule.sequential(order, c.cuts or chosen.cuts)
  with blaming('sampling.steps', c.steps):
    steps = c.steps[0] if len(c.steps) == 1 else c.steps
    table = schedule.table(plan, steps)
  with blaming('sampling.solver', c.solver):
    solvers.get_solver(c.solver)
  # On a curved path a solver has its order along rows that are even in tau.
  return path.PATHS[config.path].level(table)[:, chosen.indices]


def order_of(
  config: ConfigDict, strategies: dict[str, Strategy], known: Sequence[int] = ()
) -> tuple[str, tuple[int, ...]]:
  """The strategy that `config.sampling` names, and the order in which it generates its groups."""
  c = config.sampling
  if c.strategy and c.strategy not in strategies:
    raise ConfigError(f'sampling.strategy = {c.strategy!r}: there are {", ".join(strategies)}')
  name = c.strategy or next(iter(strategies))
  chosen = strategies[name]
  groups = range(chosen.num_groups)
  order = c.order or chosen.order or (*known, *(g for g in groups if g not in known))
  if len(order) != chosen.num_groups:
    raise ConfigError(f'sampling.order = {order}: the strategy has {chosen.num_groups} groups')
  if c.order and chosen.order and c.order != chosen.order:
    raise ConfigError(
      f'sampling.order = {c.order}: the strategy was trained on {chosen.order} alone'
    )
  with blaming('sampling.order', order):
    schedule.sequential(order)
  if set(order[: len(known)]) != set(known):
    raise ConfigError(f'groups {known} do not come first in the order {order} of {name}')
  return name, tuple(order)


def labels(config: ConfigDict, seeds: Int[np.ndarray, ' n']) -> Int[np.ndarray, ' n']:
  """The class that each seed makes: `sampling.labels` in turn, -1 for a model without classes."""
  choice = config.sampling.labels or tuple(range(config.model.classes)) or (-1,)
  return np.asarray(choice, np.int32)[np.asarray(seeds) % len(choice)]


def source(
  config: ConfigDict, split: str = 'data.split', memory_gib: float | None = None
) -> base.Source:
  """The data of `data.split`, or of the split that another key names where it names one.

  memory_gib: instead of `data.memory_gib`; 0 for what is read only once. Raises DataError.
  """
  c, wanted = config.data, split != 'data.split' and get(config, split)
  memory = int((c.memory_gib if memory_gib is None else memory_gib) * 2**30)
  try:
    return sources.load(c.name, wanted or c.split, c.shape, c.data_dir or None, memory)
  except DataError as error:
    if wanted:
      raise DataError(f'{split} = {wanted!r}: {error}') from None
    raise


def check_devices(config: ConfigDict, count: int | None = None):
  """Raises ConfigError where the batch, or a part of it, does not divide over the devices.

  count: of devices, by default all that are there.
  """
  devices, c = count or jax.device_count(), config.train
  if devices % c.fsdp:
    raise ConfigError(f'train.fsdp = {c.fsdp} does not divide {devices} devices')
  if c.batch % (devices * c.microbatches):
    parts = f' in each of train.microbatches = {c.microbatches}' * (c.microbatches > 1)
    raise ConfigError(f'train.batch = {c.batch} does not divide over {devices} devices{parts}')


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


def _basis(c, grid):
  builders = {
    'pixel': lambda: basis.pixel(grid),
    'cosine': lambda: basis.cosine(grid),
    'blur': lambda: basis.blur(grid, c.sigma, c.boundary),
  }
  if c.name not in builders:
    raise ConfigError(f'basis.name = {c.name!r}: there are {", ".join(builders)}')
  with blaming('basis', c.to_dict()):
    return builders[c.name]()


def _grouping(key, c, grid, base):
  builders = {
    'whole': lambda: grouping.whole(grid),
    'rows': lambda k: grouping.rows(grid, k),
    'columns': lambda k: grouping.columns(grid, k),
    'cascade': lambda k: grouping.cascade(grid, k),
    'blocks': lambda *parts: grouping.blocks(grid, parts),
    'elements': lambda: grouping.elements(grid),
    'bands': lambda *edges: grouping.bands(base, edges),
  }
  if c.grouping == 'bands' and not base.factors:
    raise ConfigError(f"{key}.grouping = 'bands' needs a frequency basis, not basis.name = 'pixel'")
  if c.grouping not in builders:
    raise ConfigError(f'{key}.grouping = {c.grouping!r}: there are {", ".join(builders)}')
  try:
    return builders[c.grouping](*c.groups)
  except TypeError:
    raise ConfigError(f'{key}.groups = {c.groups} does not fit grouping {c.grouping!r}') from None
  except ValueError as error:
    raise ConfigError(f'{key}.groups = {c.groups}: {error}') from None


def _strategy(key, c, indices):
  strategy = Strategy(c.order or None, c.cuts or None, indices)
  k = strategy.num_groups
  if c.order and len(c.order) != k:
    raise ConfigError(f'{key}.order = {c.order}: the grouping has {k} groups')
  with blaming(f'{key}.order', c.order):
    schedule.sequential(c.order or range(k))
  with blaming(f'{key}.cuts', c.cuts):
    schedule.sequential(range(k), strategy.cuts)
  return strategy


def _network(c, grid, channels, conditions, remat):
  common = {
    'out_channels': channels,
    'num_classes': c.classes,
    'augment_dim': conditions,
    'dtype': jnp.dtype(c.dtype),
  }
  if c.name == 'mlp':
    return mlp.MLP(width=c.channels, depth=c.blocks, **common)
  if c.name != 'ddpmpp':
    raise ConfigError(f'model.name = {c.name!r}: there are ddpmpp, mlp')
  divisor = 2 ** (len(c.multipliers) - 1)
  if len(grid) != 2 or any(n % divisor for n in grid):
    raise ConfigError(
      f'model.multipliers = {c.multipliers} halve the grid {len(c.multipliers) - 1} times: '
      f'data.shape = {(*grid, channels)} must be an image with sides divisible by {divisor}'
    )
  return ddpmpp.DDPMPP(
    channels=c.channels,
    multipliers=c.multipliers,
    blocks=c.blocks,
    attention=c.attention,
    dropout=c.dropout,
    remat=remat,
    **common,
  )


def _predictor(network, process, space, num_levels):
  def apply(x_t, params, alpha, label, augment, train, rngs):
    if augment is None:
      augment = jnp.zeros((len(x_t), network.augment_dim - num_levels), alpha.dtype)
    levels = process.coefficient_map(alpha).astype(x_t.dtype)
    noise = NOISE_LABELS * (1 - levels.mean(tuple(range(1, levels.ndim))))
    return network.apply(
      {'params': params},
      jnp.concatenate([x_t, levels], -1),
      noise,
      class_label=None if label is None else jax.nn.one_hot(label, network.num_classes),
      augment_label=jnp.concatenate([alpha[:, :num_levels], augment], -1),
      train=train,
      rngs=rngs,
    )

  if space == 'frequency':
    apply = losses.in_frequency_space(apply, process.basis)

  def predict(params, x_t, alpha, label=None, augment=None, train=False, rngs=None):
    return apply(x_t, params, alpha, label, augment, train, rngs)

  return predict
