"""--dry_run: the resolved config, the parameters and the cost, without touching a disk."""

import functools

import jax
import jax.numpy as jnp
from clu import parameter_overview
from ml_collections import ConfigDict

from gdm_jax import build
from gdm_jax.modes import common
from gdm_jax.training import loop
from gdm_jax.training import step as training_step


def run(config: ConfigDict):
  """Prints all three. Raises ConfigError."""
  system = build.system(config)
  table = build.generation(config, system.strategies)
  common.check_devices(config, 'train.batch')
  params = jax.eval_shape(system.init, jax.random.key(0))
  print(config)
  print(parameter_overview.get_parameter_overview(params, include_stats=False))

  count = sum(x.size for x in jax.tree.leaves(params))
  batch, steps = config.train.batch, len(table) - 1
  train, forward = training_flops(config, system), network_flops(config, system, params, 1)
  network = network_flops(config, system, params, batch, gradient=True) / batch
  print(f'parameters          {count:,}')
  print(f'groups              {system.process.grouping.num_groups} (all strategies refined)')
  print(f'network, forward    {forward / 1e9:.3f} GFLOP an image')
  print(
    f'training step       {train / 1e9:.3f} GFLOP an image, {1 - network / train:.2%} of it '
    'for groups, loss, Adam and EMA'
  )
  print(
    f'whole run           {loop.steps(config):,} steps of {batch}, '
    f'{train * config.train.duration / 1e18:.3g} EFLOP'
  )
  print(f'one sample          {steps} steps, {steps * forward / 1e9:.3f} GFLOP with Euler')


def network_flops(config: ConfigDict, system: build.System, params, batch, gradient=False) -> float:
  """FLOPs of the network on a batch, and of its gradient if asked, as XLA counts them."""
  x = jax.ShapeDtypeStruct((batch, *config.data.shape), jnp.float32)
  alpha = jax.ShapeDtypeStruct((batch, system.process.grouping.num_groups), jnp.float32)

  def forward(params, x, alpha, key):
    rngs = {'dropout': key}
    return jnp.sum(system.predict(params, x, alpha, train=gradient, rngs=rngs) ** 2)

  function = jax.grad(forward) if gradient else forward
  return _flops(function, params, x, alpha, jax.eval_shape(jax.random.key, 0))


def training_flops(config: ConfigDict, system: build.System) -> float:
  """FLOPs per image of a whole training step, as XLA counts them."""
  optimizer = build.optimizer(config)
  state = jax.eval_shape(functools.partial(training_step.create, config, system, optimizer))
  x = jax.ShapeDtypeStruct((config.train.batch, *config.data.shape), jnp.float32)
  label = jax.ShapeDtypeStruct((config.train.batch,), jnp.int32)
  step = training_step.make(config, system, optimizer)
  return _flops(step, state, {'x': x, 'label': label}) / config.train.batch


def _flops(function, *args):
  return jax.jit(function).lower(*args).cost_analysis()['flops']
