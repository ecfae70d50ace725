"""The training state and the one step that changes it (Eq. 8, EDM's recipe).

All randomness of a step comes from (seed, step) and is drawn for the global batch, so a run does
not depend on the number of devices beyond float rounding, nor on where it was interrupted.
"""

import functools
from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from gdm_jax import losses, schedule
from gdm_jax.build import System
from gdm_jax.data.augment import augment
from gdm_jax.process import Data, Levels

STREAMS = ('init', 'time', 'order', 'latent', 'dropout', 'label')


@flax.struct.dataclass
class TrainState:
  """Everything that a step changes."""

  step: Int[Array, '']
  params: dict
  ema: dict
  optimizer: optax.OptState


def random_keys(seed: int, step: Int[Array, '']) -> dict[str, jax.Array]:
  """One key for each named stream of a step."""
  key = jax.random.fold_in(jax.random.key(seed), step)
  keys = dict(zip(STREAMS, jax.random.split(key, len(STREAMS)), strict=True))
  # Folded in, so that the streams above keep their keys.
  return {**keys, 'augment': jax.random.fold_in(key, len(STREAMS))}


def create(config: ConfigDict, system: System, optimizer: optax.GradientTransformation):
  """The state before the first step."""
  params = system.init(random_keys(config.seed, 0)['init'])
  return TrainState(jnp.int32(0), params, jax.tree.map(jnp.copy, params), optimizer.init(params))


def make(
  config: ConfigDict, system: System, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, dict], tuple[TrainState, dict[str, Float[Array, '']]]]:
  """The step `(state, batch) -> (state, metrics)`, to be compiled by the caller.

  batch['x']: uint8 in 0..255, scaled here to [-1, 1], or float32 as it is, [batch, *grid, c];
  batch['label']: int32 [batch]. metrics: 'loss', the batch's mean, and 'gradient_norm'.
  """

  def step(state, batch):
    x, augmentation = from_uint8(batch['x']), None
    keys = random_keys(config.seed, state.step)
    if config.data.augment:
      x, augmentation = augment(keys['augment'], x, config.data.augment)
    z, alpha, rate = diffusion(config, system, keys, x)
    label = None
    if config.model.classes:
      hidden = jax.random.bernoulli(keys['label'], config.train.label_dropout, (len(x),))
      label = jnp.where(hidden, -1, batch['label'])

    def mean_loss(params, key, part):
      x, z, alpha, rate, label, augmentation = part

      def predict(x_t, alpha):
        rngs = {'dropout': key}
        return system.predict(params, x_t, alpha, label, augmentation, train=True, rngs=rngs)

      weighting = config.train.weighting
      return jnp.mean(losses.loss(predict, system.process, x, z, alpha, rate, weighting))

    whole = x, z, alpha, rate, label, augmentation
    gradients = functools.partial(jax.value_and_grad(mean_loss), state.params)
    loss, gradient = in_parts(gradients, keys['dropout'], whole, config.train.microbatches)
    return update(config, optimizer, state, loss, gradient)

  return step


def in_parts(gradients: Callable, key: jax.Array, batch: tuple, count: int) -> tuple:
  """The mean over `count` parts of a batch of what `gradients(key, part)` gives, one at a time.

  Rows i, i + count, ... are part i, so that every device has as many rows of each.
  """
  if count == 1:
    return gradients(key, batch)
  parts = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch)

  def add(total, part):
    return jax.tree.map(jnp.add, total, gradients(*part)), None

  keys = jax.random.split(key, count)
  first = jax.tree.map(lambda x: x[0], (keys, parts))
  zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradients, *first))
  total, _ = jax.lax.scan(add, zero, (keys, parts))
  return jax.tree.map(lambda x: x / count, total)


def diffusion(
  config: ConfigDict, system: System, keys: dict[str, jax.Array], x: Data
) -> tuple[Data, Levels, Levels]:
  """What a step draws for its data: latents z, signal levels and their rates, [batch, k]."""
  t = schedule.training_times(keys['time'], len(x), config.train.low_discrepancy)
  plan = schedule.draw(keys['order'], tuple(system.strategies.values()), len(x))
  z = jax.random.normal(keys['latent'], x.shape, x.dtype)
  return z, schedule.coefficients(plan, t), schedule.rates(plan, t)


def update(
  config: ConfigDict,
  optimizer: optax.GradientTransformation,
  state: TrainState,
  loss: Float[Array, ''],
  gradient: dict,
) -> tuple[TrainState, dict[str, Float[Array, '']]]:
  """Parameters, optimizer and EMA after one gradient; the metrics of `make`."""
  updates, moments = optimizer.update(gradient, state.optimizer, state.params)
  params = optax.apply_updates(state.params, updates)
  decay = _ema_decay(config.train, state.step)
  ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)
  metrics = {'loss': loss, 'gradient_norm': optax.tree.norm(gradient)}
  return TrainState(state.step + 1, params, ema, moments), metrics


def from_uint8(x: Array) -> Float[Array, '*shape']:
  """uint8 images in 0..255 as float32 in [-1, 1]; floats as they are."""
  return x.astype(jnp.float32) / 127.5 - 1 if x.dtype == jnp.uint8 else x


def _ema_decay(c, step):
  """EDM's average: a half-life in images, short at the start of training."""
  images = step * float(c.batch)
  halflife = (
    jnp.minimum(float(c.ema_halflife), images * c.ema_ramp) if c.ema_ramp else c.ema_halflife
  )
  return 0.5 ** (c.batch / jnp.maximum(halflife, 1e-8))
