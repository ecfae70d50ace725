"""What a training step costs besides its network: times both, on this machine.

  python -m experiments.benchmarks.step_cost --config=configs/cifar10_cdm.py --config.train.batch=8

Times in turn the whole step (times, schedules, diffusion, loss, network, Adam, EMA), the step
whose noised input, signal levels and target are given, and everything of GDM alone: the step's
times, schedules, diffusion and loss around a network that does nothing. Then reads the data
pipeline alone. For a large network the difference of the first two drowns in noise; the third is
the one to quote. Prints medians. Run it on an idle machine.
"""

import json
import statistics
import time

import jax
import jax.numpy as jnp

from experiments.lib import command
from gdm_jax import build, losses
from gdm_jax.data import pipeline, units
from gdm_jax.runtime import sharding
from gdm_jax.training import step as training_step

REPEATS = 7


def run(config):
  """Prints the seconds of both steps and of a batch of data, and their ratios, as JSON."""
  system, optimizer = build.system(config), build.optimizer(config)
  mesh = sharding.mesh()
  iterator = pipeline.batches(
    build.data_source(config), config.train.batch, config.seed, flip=config.data.flip
  )
  batch = sharding.shard_batch(next(iterator), mesh)
  state = jax.jit(lambda: training_step.init_state(config, system, optimizer))()

  # The whole step, the network's alone, and the groups' alone.
  whole = jax.jit(training_step.make_train_step(config, system, optimizer))
  bare = jax.jit(bare_step(config, system, optimizer))
  x = units.from_uint8(batch['x'])
  alpha = jnp.full((len(x), system.process.grouping.num_groups), 0.5)

  groups = jax.jit(_groups(config, system))
  programs = {
    'whole': (whole, (state, batch)),
    'network': (bare, (state, x, x, alpha)),
    'groups': (groups, (state.step, x)),
  }

  # Time them in turn.
  times = {name: [] for name in programs}
  for repeat in range(REPEATS + 1):
    for name, (f, args) in programs.items():
      start = time.perf_counter()
      jax.block_until_ready(f(*args))
      if repeat:  # the first time compiles
        times[name].append(time.perf_counter() - start)
  start = time.perf_counter()
  for _ in range(REPEATS):
    sharding.shard_batch(next(iterator), mesh)
  data = (time.perf_counter() - start) / REPEATS

  # Compare.
  median = {name: statistics.median(t) for name, t in times.items()}
  report = {
    'device': jax.devices()[0].device_kind,
    'batch': config.train.batch,
    'seconds_whole_step': median['whole'],
    'seconds_network_step': median['network'],
    'seconds_groups_alone': median['groups'],
    'groups_over_network_step': median['groups'] / median['network'],
    'seconds_of_data_per_batch': data,
    'data_over_step': data / median['whole'],
  }
  print(json.dumps(report, indent=2))


def _groups(config, system):
  """Times, schedules, diffusion and loss of a step, around a network that returns its input."""

  def cost(step, x):
    keys = training_step.random_keys(config.seed, step)
    z, alpha, rate, _ = training_step.draw_noise(config, system, keys, x)

    def predict(x_t, alpha):
      return x_t * alpha.mean()

    return jnp.mean(losses.loss(predict, system.process, x, z, alpha, rate, config.train.weighting))

  return cost


def bare_step(config, system, optimizer):
  """The training step without anything that is GDM: input, levels and target are given."""

  def loss(params, x_t, target, alpha, key):
    u = system.predictor(params, x_t, alpha, train=True, rngs={'dropout': key})
    return jnp.mean((target - u) ** 2)

  def step(state, x_t, target, alpha):
    key = training_step.random_keys(config.seed, state.step)['dropout']
    value, gradient = jax.value_and_grad(loss)(state.params, x_t, target, alpha, key)
    return training_step.apply_gradient(config, optimizer, state, value, gradient)

  return step


if __name__ == '__main__':
  command.start(lambda config, _: run(config), __doc__, trained=False)
