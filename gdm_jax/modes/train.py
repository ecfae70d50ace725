"""--mode=train: from a config to checkpoints, samples and pictures in the workdir."""

import pathlib

import jax
import numpy as np
import tqdm
from ml_collections import ConfigDict

from gdm_jax import build, figures, generate, sharding
from gdm_jax.data import pipeline
from gdm_jax.modes import common
from gdm_jax.training import loop
from gdm_jax.training.checkpoint import Checkpoints, check_unchanged
from gdm_jax.training.logger import Logger, say

PATIENCE = 120.0  # seconds that a grid of samples may take


def run(config: ConfigDict, workdir: pathlib.Path):
  """Trains to `train.duration`, from the newest checkpoint if there is one.

  Raises ConfigError and DataError before anything is written, TrainingError and Interrupted while
  training.
  """
  system = build.system(config)
  table = build.generation(config, system.strategies)
  common.check_devices(config, 'train.batch')
  check_unchanged(config, workdir)
  source = common.load(config)
  common.make_workdir(workdir)

  mesh = sharding.mesh()
  primary = jax.process_index() == 0
  if primary:
    (workdir / 'config.json').write_text(config.to_json(indent=2) + '\n')
  iterator = pipeline.batches(
    source,
    config.train.batch,
    config.seed,
    flip=config.data.flip,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  generator = generate.Generator(system, config.data.shape, config.sampling.solver, mesh)

  def states(state):
    side = _affordable(config.log.grid, len(table) - 1, logger.images_per_second)
    parts = generator.states(state.ema, table, config.sampling.seed + np.arange(side**2))
    total = len(generate.pieces(table))
    return tqdm.tqdm(parts, 'samples', total, leave=False, disable=None if primary else True)

  def draw(state, images):
    *_, x = states(state)
    if primary:
      figures.save(workdir / 'progress' / f'{images:010d}.png', figures.overview(x))

  with Checkpoints(workdir, config.checkpoint.keep) as checkpoints:
    state = loop.start(config, system, iterator, checkpoints, mesh)
    steps = loop.steps(config)
    logger = Logger(workdir, config.train.batch, int(state.step), steps, primary)
    try:
      state = loop.run(config, system, state, iterator, checkpoints, logger, mesh, draw)
    finally:
      logger.close()

  say(f'trained on {int(state.step) * config.train.batch:,} images; drawing samples')
  pictures = [figures.overview(x) for x in states(state)]
  if primary:
    figures.save(workdir / 'samples.png', pictures[-1])
    figures.animate(workdir / 'generation.gif', pictures)
    figures.plot_loss(workdir / 'loss.png', workdir / 'metrics.jsonl')
  say(f'see {workdir}/samples.png, generation.gif and loss.png')


def _affordable(side: int, steps: int, images_per_second: float) -> int:
  """The side of a grid of samples that takes no longer than PATIENCE: a training image costs
  about three evaluations of the network."""
  most = int((PATIENCE * 3 * images_per_second / steps) ** 0.5) if images_per_second < 1e9 else side
  if most < side:
    side = max(most, 1)
    say(f'this machine is slow for this network: drawing {side**2} samples, --mode=sample has more')
  return side
