"""The training loop: steps, logs, checkpoints, sample grids, and leaving in good order."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence

import grain
import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gdm_jax.build import System, optimizer
from gdm_jax.runtime import console, sharding
from gdm_jax.runtime.distributed import StopSignal
from gdm_jax.training import step as training_step
from gdm_jax.training.checkpoint import Checkpoints
from gdm_jax.training.logger import Logger, NonFiniteError
from gdm_jax.training.step import TrainState


class TrainingError(RuntimeError):
  """A run that cannot go on; the message says what is safe and what to try."""


class Interrupted(Exception):
  """The run was asked to stop by `signal`, and saved."""

  def __init__(self, number: int, step: int):
    name = signal.Signals(number).name
    super().__init__(f'{name}: saved step {step:,}; run the same command again to go on')
    self.signal = number


@contextlib.contextmanager
def collect_signals() -> Iterator[list[int]]:
  """Collects SIGINT and SIGTERM instead of dying of them; a second one kills as usual."""
  received: list[int] = []

  def receive(number, _):
    received.append(number)
    signal.signal(number, previous[number])
    os.write(2, b'\nstopping after this step; once more to stop at once\n')

  previous = {n: signal.signal(n, receive) for n in (signal.SIGINT, signal.SIGTERM)}
  try:
    yield received
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


def steps(config: ConfigDict) -> int:
  """How many steps the run's duration takes."""
  return -(-config.train.duration // config.train.batch)


def start(
  config: ConfigDict,
  system: System,
  iterator: grain.DatasetIterator,
  checkpoints: Checkpoints,
  mesh: Mesh,
) -> TrainState:
  """The state of the newest checkpoint, `iterator` put where it was; or a fresh one."""

  def create():
    return training_step.init_state(config, system, optimizer(config))

  abstract = jax.eval_shape(create)
  layout = sharding.fsdp_sharded(mesh, abstract)
  if checkpoints.latest() is None:
    return jax.jit(create, out_shardings=layout)()
  target = jax.tree.map(
    lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), abstract, layout
  )
  state, position = checkpoints.restore(target)
  iterator.set_state(position)
  console.log(f'resumed from step {int(state.step):,}')
  return state


def run(
  config: ConfigDict,
  system: System,
  state: TrainState,
  iterator: grain.DatasetIterator,
  checkpoints: Checkpoints,
  logger: Logger,
  mesh: Mesh,
  events: Sequence[tuple[int, Callable[[TrainState, int], None]]],
  stop: StopSignal,
) -> TrainState:
  """Trains to the end of the duration and returns the last state, saved.

  events: (every, call), and call(state, images) is called every so many images, 0 for never.
  Raises Interrupted after a signal, and TrainingError at a loss that is not finite, in which case
  nothing is saved.
  """
  batch, first, last = config.train.batch, int(state.step), steps(config)
  advance = jax.jit(
    training_step.make_train_step(config, system, optimizer(config)),
    donate_argnums=0,
    out_shardings=(sharding.fsdp_sharded(mesh, state), sharding.replicated(mesh)),
  )
  if first < last:
    console.log('compiling the training step')
  for step in range(first, last):
    with logger.waiting():
      examples = sharding.shard_batch(next(iterator), mesh)
    state, metrics = advance(state, examples)
    logger.add(metrics)
    if step == first:  # compilation is over when the first step is
      jax.block_until_ready(metrics)
      logger.restart()

    def due(every, images=(step + 1) * batch):
      return every and images // every > (images - batch) // every

    signalled = stop.poll()  # read once: whatever is decided on it below must agree
    saving = step + 1 == last or due(config.checkpoint.every) or signalled
    if saving or due(config.log.every) or logger.stale():
      try:
        logger.flush()
      except NonFiniteError as error:
        raise TrainingError(_advice(error, config, checkpoints)) from None
    if saving:
      with logger.paused():
        checkpoints.save(state, iterator.get_state(), config)
    if signalled:
      raise Interrupted(signalled, step + 1)
    for every, call in events:
      if due(every):
        with logger.paused():
          call(state, (step + 1) * batch)
  return state


def _advice(error, config, checkpoints):
  safe = checkpoints.latest()
  kept = 'no checkpoint had been saved' if safe is None else f'the last good one is step {safe:,}'
  return (
    f'{error}; {kept} and stays as it is. Try a lower --config.train.learning_rate '
    f'({config.train.learning_rate}), a longer --config.train.ramp ({config.train.ramp:,}), '
    'or float32, in a new --workdir'
  )
