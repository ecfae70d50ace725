"""--mode=train: from a config to checkpoints, samples and pictures in the workdir."""

import pathlib

import jax
import numpy as np
import tqdm
from ml_collections import ConfigDict

from gdm_jax import build, figures
from gdm_jax.config import parse_seeds
from gdm_jax.data import pipeline
from gdm_jax.evaluation import evaluator
from gdm_jax.generation.generator import Generator, chunks
from gdm_jax.modes import common, evaluate
from gdm_jax.runtime import console, distributed, lock, sharding
from gdm_jax.runtime.distributed import StopSignal, decide
from gdm_jax.training import loop
from gdm_jax.training.checkpoint import Checkpoints, check_unchanged, write_config
from gdm_jax.training.logger import Logger

FRAME = 4  # steps between the frames of generation.gif
ANIMATED = 16  # images in it
PATIENCE = 120.0  # seconds that a grid of samples may take


def run(config: ConfigDict, workdir: pathlib.Path):
  """Trains to `train.duration`, from the newest checkpoint if there is one.

  Raises ConfigError and DataError before it trains, TrainingError and Interrupted while it does.
  """
  system = build.system(config)
  table = build.sampling_table(config, system.strategies)
  build.check_devices(config)
  check_unchanged(config, workdir)
  source = build.data_source(config)
  common.check_classes(config, source)
  common.make_workdir(workdir)

  mesh = sharding.mesh(config.train.fsdp)
  primary = distributed.is_primary()
  iterator = pipeline.batches(
    source,
    config.train.batch,
    config.seed,
    flip=config.data.flip,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  if config.evaluation.every:
    evaluation = evaluator.Evaluator(config, system, workdir / evaluate.FOLDER, mesh)
    rows = evaluator.open_csv(workdir)
  c = config.sampling
  generator = Generator(system, config.data.shape, c.solver, mesh, c.guidance)

  with loop.collect_signals() as received:
    stop = StopSignal(received, mesh)

    def states(state):
      """The grid's states while generating; None where a signal came in between."""
      frames = []
      rate = decide(logger.images_per_second)  # of one clock, since all must draw as many
      side = _affordable(config.log.grid, len(table) - 1, rate)
      seeds = parse_seeds(config)[0] + np.arange(side**2, dtype=np.uint32)
      ema = sharding.replicate(mesh, state.ema)
      bar = tqdm.tqdm(
        generator.iterate(ema, table, seeds, build.sampling_labels(config, seeds), piece=FRAME),
        desc='samples',
        total=1 + len(chunks(table, FRAME)),
        leave=False,
        disable=None if primary else True,
      )
      for x in bar:
        frames.append(generator.to_host(x, len(seeds)))
        if stop.now():
          return None
      return frames

    def draw(state, images):
      if (frames := states(state)) and primary:
        figures.save(workdir / 'progress' / f'{images:010d}.png', figures.overview(frames[-1]))

    def measure(state, images):
      weights = evaluator.Checkpoint(sharding.replicate(mesh, state.ema), int(state.step))
      row = evaluator.evaluate(config, evaluation, weights, rows, lambda: bool(stop.now()))
      if row and primary:
        console.log(f'{images:,} images: {row["metric"]} {row["distance"]}')
        evaluator.plot(workdir / 'evaluation.png', rows, row)

    with lock.exclusive(workdir), Checkpoints(workdir, config.checkpoint.keep) as checkpoints:
      state = loop.init_or_restore(config, system, iterator, checkpoints, mesh)
      if primary:
        write_config(config, workdir)
      steps = loop.num_steps(config)
      events = ((config.log.samples_every, draw), (config.evaluation.every, measure))
      logger = Logger(workdir, config.train.batch, int(state.step), steps, primary)
      try:
        state = loop.train(config, system, state, iterator, checkpoints, logger, mesh, events, stop)
      finally:
        logger.close()

    console.log(f'trained on {int(state.step) * config.train.batch:,} images; drawing samples')
    frames = states(state)
    if frames is None:
      raise loop.Interrupted(stop.now(), int(state.step))
  if primary:
    figures.save(workdir / 'samples.png', figures.overview(frames[-1]))
    pictures = [figures.overview(x[:ANIMATED]) for x in frames]
    figures.animate(workdir / 'generation.gif', pictures)
    figures.plot_loss(workdir / 'loss.png', workdir / 'metrics.jsonl')
  console.log(f'see {workdir}/samples.png, generation.gif and loss.png')


def _affordable(side: int, steps: int, images_per_second: float) -> int:
  """The side of a square of samples that this machine draws with PATIENCE.

  A training image costs about three evaluations of the network; without any, a full grid.
  """
  most = max(int((PATIENCE * 3 * images_per_second / steps) ** 0.5), 1)
  if not images_per_second or most >= side:
    return side
  console.log(
    f'slow for this network: drawing {most**2} samples, not {side**2}; --mode=sample has more'
  )
  return most
