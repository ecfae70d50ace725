"""Pictures of a training run: sample grids on the way, and the final ones."""

import pathlib

import numpy as np
import tqdm
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gdm_jax import build, figures
from gdm_jax.config import parse_seeds
from gdm_jax.generation.generator import Generator
from gdm_jax.runtime import console, distributed, sharding
from gdm_jax.runtime.distributed import StopSignal
from gdm_jax.training.logger import Logger
from gdm_jax.training.step import TrainState

FRAME_STEPS = 4  # steps between the frames of generation.gif
ANIMATED = 16  # images in it
PATIENCE = 120.0  # seconds that a grid of samples may take


class Preview:
  """Samples of the EMA parameters, from the same latents each time."""

  def __init__(
    self,
    config: ConfigDict,
    system: build.System,
    workdir: pathlib.Path,
    mesh: Mesh,
    stop: StopSignal,
  ):
    self._config, self._workdir, self._mesh, self._stop = config, workdir, mesh, stop
    self._table = build.sampling_table(config, system)
    self._generator = Generator.from_config(config, system, mesh)

  def draw(self, state: TrainState, images: int, logger: Logger):
    """Writes a sample grid to progress/, named by the training images seen."""
    if frames := self._frames(state, logger):
      figures.save(self._workdir / 'progress' / f'{images:010d}.png', figures.overview(frames[-1]))

  def finish(self, state: TrainState, logger: Logger) -> bool:
    """Writes samples.png, generation.gif and loss.png. False if a signal came in between."""
    frames = self._frames(state, logger)
    if frames is None:
      return False
    figures.save(self._workdir / 'samples.png', figures.overview(frames[-1]))
    pictures = [figures.overview(x[:ANIMATED]) for x in frames]
    figures.animate(self._workdir / 'generation.gif', pictures)
    figures.plot_loss(self._workdir / 'loss.png', self._workdir / 'metrics.jsonl')
    return True

  def _frames(self, state, logger):
    """The images at the frames of their generation; None if a signal came in between."""
    config, frames = self._config, []
    # One process's clock, since all must draw equally many.
    rate = distributed.from_process_0(logger.images_per_second)
    side = _affordable(config.log.grid, len(self._table) - 1, rate)
    seeds = parse_seeds(config)[0] + np.arange(side**2, dtype=np.uint32)
    labels = build.sampling_labels(config, seeds)
    ema = sharding.replicate(self._mesh, state.ema)
    bar = tqdm.tqdm(
      self._generator.iterate(ema, self._table, seeds, labels, chunk_steps=FRAME_STEPS),
      desc='samples',
      total=1 + self._generator.count(self._table, FRAME_STEPS),
      leave=False,
      disable=None if distributed.is_primary() else True,
    )
    for x in bar:
      frames.append(self._generator.to_host(x, len(seeds)))
      if self._stop.agree():
        return None
    return frames


def _affordable(side: int, steps: int, images_per_second: float) -> int:
  """The side of a square of samples that this machine draws within PATIENCE.

  A training image costs about three evaluations of the network; without a rate, a full grid.
  """
  most = max(int((PATIENCE * 3 * images_per_second / steps) ** 0.5), 1)
  if not images_per_second or most >= side:
    return side
  console.log(
    f'slow for this network: drawing {most**2} samples, not {side**2}; --mode=sample has more'
  )
  return most
