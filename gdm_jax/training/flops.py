"""FLOPs of the network and of a training step, as XLA counts them before it compiles anything.

Convolutions count as direct ones, although a CPU does some with fewer (`runtime.winograd`), so that
a count is the same on every machine. jax's CPU backend counts: accelerators do not before they
compile. If JAX_PLATFORMS excludes it, all functions raise ConfigError.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gdm_jax import build
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training import step as training_step


def network(config: ConfigDict, system: build.System, batch: int, gradient: bool = False) -> float:
  """FLOPs of the network on a batch, and of its gradient if asked."""
  params = jax.eval_shape(system.predictor.init, jax.random.key(0))
  x = jax.ShapeDtypeStruct((batch, *config.data.shape), jnp.float32)
  alpha = jax.ShapeDtypeStruct((batch, system.process.grouping.num_groups), jnp.float32)

  def forward(params, x, alpha, key):
    rngs = {'dropout': key}
    return jnp.sum(system.predictor(params, x, alpha, train=gradient, rngs=rngs) ** 2)

  function = jax.grad(forward) if gradient else forward
  return count(function, params, x, alpha, jax.eval_shape(jax.random.key, 0))


def training(config: ConfigDict, system: build.System) -> float:
  """FLOPs per image of a whole training step."""
  config = config.copy_and_resolve_references()
  config.machine.microbatches = 1  # XLA counts the body of a loop once
  optimizer = build.optimizer(config)
  inputs = training_step.abstract_inputs(config, system, optimizer)
  step = training_step.make_train_step(config, system, optimizer)
  return count(step, *inputs) / config.train.batch


def count(function: Callable, *args: Any) -> float:
  """FLOPs of a function of arrays or of their shapes; the body of a loop counts once."""
  try:
    (cpu, *_) = jax.local_devices(backend='cpu')
  except RuntimeError as error:
    raise ConfigError(f"FLOPs are counted by jax's CPU, add it to JAX_PLATFORMS: {error}") from None
  with jax.default_device(cpu):
    lowered = jax.jit(function).trace(*args).lower(lowering_platforms=('tpu',))
    return lowered.cost_analysis().get('flops', 0.0)  # absent if nothing is computed
