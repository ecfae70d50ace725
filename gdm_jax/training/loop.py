"""The training loop: steps, logs, checkpoints, events, and an orderly end."""

import dataclasses
from collections.abc import Callable, Sequence

import grain
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gdm_jax.build import System, optimizer
from gdm_jax.runtime import console, sharding
from gdm_jax.runtime.distributed import StopSignal
from gdm_jax.runtime.errors import DataError, Interrupted, TrainingError
from gdm_jax.training import step as training_step
from gdm_jax.training.checkpoint import Checkpoints
from gdm_jax.training.logger import Logger, NonFiniteError
from gdm_jax.training.step import TrainState

Event = tuple[int, Callable[[TrainState, int], None]]
"""(every, call): `call(state, images)` is called every `every` images; 0 is never."""


@dataclasses.dataclass(frozen=True)
class Run:
  """Where a training run gets its data, writes, and hears of signals.

  about: what its checkpoints record of it (`workdir.describe`).
  """

  iterator: grain.DatasetIterator
  checkpoints: Checkpoints
  logger: Logger
  mesh: Mesh
  stop: StopSignal
  about: dict


def num_steps(config: ConfigDict) -> int:
  """The steps of the run's duration."""
  return -(-config.train.duration // config.train.batch)


def init_or_restore(
  config: ConfigDict,
  system: System,
  iterator: grain.DatasetIterator,
  checkpoints: Checkpoints,
  mesh: Mesh,
  params: Callable[[], dict] | None = None,
) -> TrainState:
  """The state of the newest checkpoint, with `iterator` moved to its position; or a new state.

  params: of the new state, on the host; by default they are random.
  """

  def create():
    return training_step.init_state(config, system, optimizer(config))

  abstract = jax.eval_shape(create)
  layout = sharding.fsdp_sharded(mesh, abstract)
  if checkpoints.latest() is None:
    options = sharding.compiler_options(mesh, optimization=0)
    state = jax.jit(create, out_shardings=layout, compiler_options=options)()
    if params is None:
      return state
    twice = jax.jit(lambda p: (p, jax.tree.map(jnp.copy, p)), out_shardings=(layout.params,) * 2)
    return state.replace(**dict(zip(('params', 'ema'), twice(params()), strict=True)))
  target = jax.tree.map(
    lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), abstract, layout
  )
  state, position = checkpoints.restore(target)
  iterator.set_state(position)
  console.log(f'resumed from step {int(state.step):,}')
  return state


def train(
  config: ConfigDict, system: System, state: TrainState, run: Run, events: Sequence[Event]
) -> TrainState:
  """Trains to the end of the duration and returns the last state, which is saved.

  Raises Interrupted after a signal and DataError at data that cannot be read, after saving; and
  TrainingError at a loss that is not finite, in which case nothing is saved.
  """
  batch, first, last = config.train.batch, int(state.step), num_steps(config)
  logger, mesh = run.logger, run.mesh
  advance = training_step.jit_train_step(config, system, optimizer(config), mesh, state)

  def save(state):
    run.checkpoints.save(state, run.iterator.get_state(), run.about)

  if first < last:
    console.log('compiling the training step')
  for step in range(first, last):
    try:
      with logger.waiting():
        examples = sharding.shard_batch(next(run.iterator), mesh)
    except DataError:
      if step > first:  # what was learnt before is worth keeping
        save(state)
      raise
    state, metrics = advance(state, examples)
    logger.add(metrics)
    if step == first:  # compilation is over when the first step is
      jax.block_until_ready(metrics)
      logger.restart()

    def due(every, images=(step + 1) * batch):
      return every and images // every > (images - batch) // every

    # Read the signal once: all decisions on it below must agree.
    signalled = run.stop.poll()
    saving = step + 1 == last or due(config.checkpoint.every) or signalled
    if saving or due(config.log.every) or logger.stale():
      try:
        logger.flush()
      except NonFiniteError as error:
        raise TrainingError(_advice(error, config, run.checkpoints)) from None
    if saving:
      with logger.paused():
        save(state)
    if signalled:
      raise Interrupted(signalled, step + 1)
    for every, call in events:
      if due(every):
        with logger.paused():
          call(state, (step + 1) * batch)
  return state


def _advice(error, config, checkpoints):
  latest = checkpoints.latest()
  kept = (
    'no checkpoint had been saved' if latest is None else f'the last good one is step {latest:,}'
  )
  return (
    f'{error}; {kept} and stays. Try a lower --config.train.learning_rate '
    f'({config.train.learning_rate}), a longer --config.train.ramp ({config.train.ramp:,}), '
    'or float32, in a new --workdir'
  )
