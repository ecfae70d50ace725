"""The training state and the one step that changes it (Eq. 8, EDM's recipe).

All randomness of a step comes from (seed, step) and is drawn for the global batch, so a run depends
neither on the number of devices, beyond float rounding, nor on where it was interrupted.
"""

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Float, Int, PRNGKeyArray
from ml_collections import ConfigDict

from gdm_jax import losses, schedule
from gdm_jax.build import System
from gdm_jax.data import units
from gdm_jax.data.augment import augment
from gdm_jax.process import Data, Levels
from gdm_jax.runtime import sharding
from gdm_jax.schedule import Schedule
from gdm_jax.typing import AnyArray

STREAMS = ('init', 'time', 'order', 'latent', 'dropout', 'label')


@flax.struct.dataclass
class TrainState:
  """Everything that a step changes.

  Leaves are arrays; but orbax and jax also put other things in their place, such as shardings.
  """

  step: Any  # int32 []
  params: Any  # of the network, a dict
  ema: Any  # their average, alike
  optimizer: optax.OptState


def random_keys(seed: int, step: int | Int[AnyArray, '']) -> dict[str, PRNGKeyArray]:
  """One key for each named stream of a step."""
  key = jax.random.fold_in(jax.random.key(seed), step)
  keys = dict(zip(STREAMS, jax.random.split(key, len(STREAMS)), strict=True))
  # Folded in, so that the other streams keep their keys.
  return {**keys, 'augment': jax.random.fold_in(key, len(STREAMS))}


def init_params(config: ConfigDict, system: System) -> dict:
  """The parameters before the first step."""
  return system.predictor.init(random_keys(config.seed, 0)['init'])


def init_state(
  config: ConfigDict, system: System, optimizer: optax.GradientTransformation
) -> TrainState:
  """The state before the first step."""
  params = init_params(config, system)
  return TrainState(jnp.int32(0), params, jax.tree.map(jnp.copy, params), optimizer.init(params))


def abstract_inputs(
  config: ConfigDict, system: System, optimizer: optax.GradientTransformation
) -> tuple[TrainState, dict[str, jax.ShapeDtypeStruct]]:
  """The shapes of the arguments of `make_train_step`'s step, with images of uint8.

  A step is lowered from them without a state or data.
  """
  state = jax.eval_shape(lambda: init_state(config, system, optimizer))
  batch = config.train.batch
  return state, {
    'x': jax.ShapeDtypeStruct((batch, *config.data.shape), jnp.uint8),
    'label': jax.ShapeDtypeStruct((batch,), jnp.int32),
  }


def make_train_step(
  config: ConfigDict,
  system: System,
  optimizer: optax.GradientTransformation,
  mesh: Mesh | None = None,
) -> Callable[[TrainState, dict], tuple[TrainState, dict[str, Float[AnyArray, '']]]]:
  """The step `(state, batch) -> (state, metrics)`, to be compiled by the caller.

  batch['x']: uint8 in 0..255, scaled here to [-1, 1], or float32, unchanged, [batch, *grid, c];
  batch['label']: int32 [batch]. metrics: 'loss', the batch's mean, and 'gradient_norm'.
  mesh: the devices that `machine.all_reduce` is about; None is one device.
  """
  c, all_at_once = config.train, trains_all_at_once(system)

  def step(state, batch):
    # Draw everything random for the global batch.
    x, augmentation = units.from_uint8(batch['x']), None
    keys = random_keys(config.seed, state.step)
    if config.data.augment:
      x, augmentation = augment(keys['augment'], x, config.data.augment)
    z, alpha, rate, diffusion = draw_noise(config, system, keys, x)
    label = None
    if config.model.classes:
      hidden = jax.random.bernoulli(keys['label'], c.label_dropout, (len(x),))
      label = jnp.where(hidden, -1, batch['label'])

    # The mean loss and its gradient, one microbatch after another.
    def mean_loss(params, rngs, examples):
      x, z, alpha, rate, bounds, label, augmentation = examples
      options = {'train': True, 'rngs': rngs}

      def predict(x_t, alpha):
        predictor = system.predictor
        if all_at_once:
          given = x, x_t, alpha, Schedule(*bounds), label, augmentation
          return predictor.conditionals(params, *given, **options)
        return predictor(params, x_t, alpha, label, augmentation, **options)

      return jnp.mean(losses.loss(predict, system.process, x, z, alpha, rate, c.weighting))

    gradient = microbatched(jax.value_and_grad(mean_loss), config.machine.microbatches)
    if mesh is not None and config.machine.all_reduce != 'auto':
      gradient = sharding.averaged(gradient, mesh, config.machine.all_reduce)
    bounds = diffusion.start, diffusion.end
    examples = x, z, alpha, rate, bounds, label, augmentation
    loss, gradient = gradient(state.params, keys['dropout'], examples)
    return apply_gradient(config, optimizer, state, loss, gradient)

  return step


def jit_train_step(
  config: ConfigDict,
  system: System,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  state: TrainState,
) -> Callable:
  """`make_train_step` as training runs it: the state, or its shapes, is divided and given up."""
  return jax.jit(
    make_train_step(config, system, optimizer, mesh),
    donate_argnums=0,
    out_shardings=(sharding.fsdp_sharded(mesh, state), sharding.replicated(mesh)),
    compiler_options=sharding.compiler_options(mesh),
  )


def overlaps(system: System) -> bool:
  """Whether groups of some strategy move at the same time, each at a level of its own."""
  return any(strategy.overlaps for strategy in system.strategies.values())


def trains_all_at_once(system: System) -> bool:
  """Whether one pass trains all groups, each at a time of its own.

  A network with `conditionals` can, if what a group is shown of others is clean.
  """
  return system.predictor.has_conditionals and not overlaps(system)


def trains_any_next(system: System) -> bool:
  """Whether a pass trains each group that is not known as if it came next, at a level of its own.

  A network that sees known groups alone can, if any order is as likely as another.
  """
  predictor, free = system.predictor, all(s.order is None for s in system.strategies.values())
  return predictor.is_groupwise and not predictor.has_conditionals and free


def microbatched(gradient: Callable, count: int) -> Callable:
  """`function(params, key, examples)`: the mean over `count` microbatches of `gradient(params,
  {'dropout': key}, examples)`, each with its own key.

  Microbatch i holds rows i, i + count, ..., so every device has as many rows of each.
  """
  if count == 1:
    return lambda params, key, examples: gradient(params, {'dropout': key}, examples)

  def one(params, keys, rows, examples):
    return gradient(params, {'dropout': keys[rows[0]]}, examples)

  def mean(params, key, examples):
    batch = len(jax.tree.leaves(examples)[0])
    accumulate = optax.microbatching.microbatch(
      one, (2, 3), batch // count, optax.microbatching.AccumulationType.MEAN
    )
    return accumulate(params, jax.random.split(key, count), jnp.arange(batch), examples)

  return mean


def draw_noise(
  config: ConfigDict, system: System, keys: dict[str, PRNGKeyArray], x: Data
) -> tuple[Data, Levels, Levels, Schedule]:
  """What a step draws for its data: latents z, signal levels and their rates, [batch, k], and the
  schedules that these come from.

  If all groups are trained at once, or all that may come next, each is at a time of its own
  interval.
  """
  diffusion = schedule.draw(keys['order'], tuple(system.strategies.values()), len(x))
  z = jax.random.normal(keys['latent'], x.shape, x.dtype)
  low_discrepancy, discrete = config.train.low_discrepancy, config.train.times == 'discrete'
  if trains_all_at_once(system):
    t = schedule.times_of_groups(keys['time'], diffusion, low_discrepancy)
    t, each = (diffusion.end if discrete else t), schedule.of_each_group(diffusion)
    return z, schedule.coefficients(each, t)[..., 0], schedule.rates(each, t)[..., 0], diffusion
  t = schedule.training_times(keys['time'], len(x), low_discrepancy)
  if discrete:
    t = schedule.interval_ends(diffusion, t)
  alpha, rate = levels(system, diffusion, t)
  if trains_any_next(system):
    # Groups not started take the rate of the one under way, and levels of their own.
    place = schedule.times_of_groups(keys['time'], diffusion, low_discrepancy)
    own = schedule.coefficients(schedule.of_each_group(diffusion), place)[..., 0] * (not discrete)
    waiting = diffusion.end < t[:, None]
    alpha = jnp.where(waiting, own, alpha)
    rate = jnp.where(waiting, rate.min(-1, keepdims=True), rate)
  return z, alpha, rate, diffusion


def levels(
  system: System, diffusion: Schedule, t: Float[AnyArray, ' batch']
) -> tuple[Levels, Levels]:
  """Signal levels and their rates, [batch, k], where schedules are at times t in training."""
  alpha, rate = schedule.coefficients(diffusion, t), schedule.rates(diffusion, t)
  if overlaps(system):
    # The rows of `Process.table` are even in tau: groups that move together must do so here too.
    alpha, rate = jax.jvp(system.process.path.level, (alpha,), (rate,))
  return alpha, rate


def apply_gradient(
  config: ConfigDict,
  optimizer: optax.GradientTransformation,
  state: TrainState,
  loss: Float[AnyArray, ''],
  gradient: dict,
) -> tuple[TrainState, dict[str, Float[AnyArray, '']]]:
  """Parameters, optimizer and EMA after one gradient; the metrics of `make_train_step`."""
  updates, moments = optimizer.update(gradient, state.optimizer, state.params)
  params = optax.apply_updates(state.params, updates)
  ema = optax.incremental_update(params, state.ema, 1 - _ema_decay(config.train, state.step))
  metrics = {'loss': loss, 'gradient_norm': optax.tree.norm(gradient)}
  return TrainState(state.step + 1, params, ema, moments), metrics


def _ema_decay(c, step):
  """EDM's average: a half-life in images, short at the start of training."""
  images = step * float(c.batch)
  halflife = (
    jnp.minimum(float(c.ema_halflife), images * c.ema_ramp) if c.ema_ramp else c.ema_halflife
  )
  return 0.5 ** (c.batch / jnp.maximum(halflife, 1e-8))
