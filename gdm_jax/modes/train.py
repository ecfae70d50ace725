"""--mode=train: from a config to checkpoints, samples and pictures in the workdir."""

import contextlib
import functools
import pathlib
from collections.abc import Callable

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gdm_jax import build
from gdm_jax.build import System
from gdm_jax.config import MODEL, RUN, resolve_labels
from gdm_jax.data import pipeline
from gdm_jax.data.contents import Contents
from gdm_jax.evaluation import evaluator
from gdm_jax.evaluation.evaluator import Checkpoint
from gdm_jax.runtime import console, distributed, lock, machine, sharding
from gdm_jax.runtime.distributed import StopSignal
from gdm_jax.runtime.errors import Interrupted
from gdm_jax.runtime.files import make_folder
from gdm_jax.training import loop, start
from gdm_jax.training.checkpoint import Checkpoints
from gdm_jax.training.logger import Logger
from gdm_jax.training.preview import Preview
from gdm_jax.training.step import TrainState
from gdm_jax.training.validation import Validation, held_out
from gdm_jax.training.workdir import check_contents, check_unchanged, describe, write_config


def run(config: ConfigDict, workdir: pathlib.Path):
  """Trains to `train.duration`, from the newest checkpoint if there is one.

  Raises ConfigError and DataError before it trains, TrainingError and Interrupted while it does.
  """
  # Check everything that can be wrong before any work.
  system = build.system(config)
  build.check_sampling(config, system)
  build.check_devices(config)
  check_unchanged(config, workdir, MODEL + RUN)
  source = build.data_source(config)
  contents = Contents.of(source)
  distributed.require_same('data', contents.fingerprint)
  check_contents(contents, workdir)
  build.check_classes(config, source)
  unseen = held_out(config)
  distributed.require_same('held-out data', unseen.fingerprint if unseen else '')
  resolve_labels(config, contents.classes)
  mesh = sharding.mesh(config.machine.fsdp)
  first = _first_parameters(config, system, workdir, mesh)
  make_folder(workdir)

  console.log(f'{config.data.name}, {config.data.split}: {contents}')
  console.log(f'training on {machine.devices()}')
  if kept := jax.config.jax_compilation_cache_dir:
    console.log(f'compiled programs are kept in {kept} (machine.compilation_cache)')
  iterator = pipeline.batches(
    source,
    config.train.batch,
    config.seed,
    flip=config.data.flip,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  with distributed.collect_signals() as received:
    stop = StopSignal(received, mesh)
    preview = Preview(config, system, workdir, mesh, stop)
    evaluate = _evaluation(config, system, workdir, mesh, stop)
    validation = unseen and Validation(config, system, unseen, workdir, mesh, stop)

    with lock.exclusive(workdir), Checkpoints(workdir, config.checkpoint.keep) as checkpoints:
      # Resume or initialise.
      state = loop.init_or_restore(config, system, iterator, checkpoints, mesh, first)
      if distributed.is_primary():
        write_config(config, contents, workdir)

      # Train.
      logger = Logger(workdir, config.train.batch, int(state.step), loop.num_steps(config))
      draw = functools.partial(preview.draw, logger=logger)
      events = [(config.log.samples_every, draw)]
      if evaluate:
        events.append((config.evaluation.every, evaluate))
      if validation:
        events.append((validation.every, functools.partial(validation, logger=logger)))
      with contextlib.closing(logger):
        if validation:
          validation.catch_up(state, logger)
        about = describe(config, contents)
        training = loop.Run(iterator, checkpoints, logger, mesh, stop, about=about)
        state = loop.train(config, system, state, training, events)

    # Draw the final samples.
    console.log(f'trained on {int(state.step) * config.train.batch:,} images; drawing samples')
    if not preview.finish(state, logger):
      raise Interrupted(stop.agree(), int(state.step))
  console.log(f'see {workdir}/samples.png, generation.gif and loss.png')


def _first_parameters(
  config: ConfigDict, system: System, workdir: pathlib.Path, mesh: Mesh
) -> Callable[[], dict] | None:
  """What gives the parameters of `train.start`, read at once unless the run resumes."""
  if not config.train.start:
    return None
  first = functools.cache(functools.partial(start.parameters, config, system, mesh))
  if not (workdir / 'checkpoints').is_dir():
    first()
  return first


def _evaluation(
  config: ConfigDict, system: System, workdir: pathlib.Path, mesh: Mesh, stop: StopSignal
) -> Callable[[TrainState, int], None] | None:
  """The event that evaluates during training, if `evaluation.every` asks for it."""
  if not config.evaluation.every:
    return None
  evaluation = evaluator.Evaluator(config, system, workdir / evaluator.FOLDER, mesh)
  cells = evaluator.open_csv(workdir)

  def evaluate(state, images):
    checkpoint = Checkpoint(sharding.replicate(mesh, state.ema), int(state.step))
    row = evaluator.evaluate(config, evaluation, checkpoint, cells, lambda: bool(stop.agree()))
    if row:
      console.log(f'{images:,} images: {row["metric"]} {row["distance"]}')
      if distributed.is_primary():
        evaluator.plot(workdir / 'evaluation.png', cells, row)

  return evaluate
