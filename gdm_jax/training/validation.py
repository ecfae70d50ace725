"""The loss of held-out examples while training: of each group, and of each third of its way."""

import functools
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from gdm_jax import build, losses, sampling
from gdm_jax.build import System
from gdm_jax.data import sources
from gdm_jax.data.base import Source
from gdm_jax.data.units import from_uint8
from gdm_jax.runtime import console, distributed, files, sharding
from gdm_jax.runtime.batching import padded_batches
from gdm_jax.runtime.distributed import StopSignal
from gdm_jax.schedule import Strategy
from gdm_jax.training import step as training_step
from gdm_jax.training.logger import Logger
from gdm_jax.training.step import TrainState

EVALUATIONS = 4096  # of the network, shared out over the thirds of all groups; at least one each
THIRDS = 3  # of a group's way from noise to data
RISES, RISE = 3, 1.01  # evaluations in a row that must rise, and by how much in all, to be named


def held_out(config: ConfigDict) -> Source | None:
  """The examples of `log.validation`; None if it is empty.

  Raises DataError for a split that does not exist, is empty, or shares examples with `data.split`.
  """
  c = config.data
  if not config.log.validation:
    return None
  source = build.data_source(config, 'log.validation', memory_gib=0)
  sources.require_disjoint(
    *(c.name, c.split, 'log.validation', config.log.validation, tuple(c.shape)),
    config.machine.data_dir or None,
  )
  return source


class Cell(NamedTuple):
  """What is averaged: the examples of one third of the way of one group of one strategy."""

  strategy: str
  group: int
  third: int


class Validation:
  """The loss of the EMA parameters on fixed examples, noise and signal levels.

  A group's loss is that of `train.weighting = active`: the mean square of x - z - u over its own
  elements while it moves, whatever the run is trained on.
  """

  def __init__(
    self,
    config: ConfigDict,
    system: System,
    source: Source,
    workdir: pathlib.Path,
    mesh: Mesh,
    stop: StopSignal,
  ):
    self._config, self._mesh, self._stop = config, mesh, stop
    self._metrics = workdir / 'metrics.jsonl'
    self.every = config.log.validation_every or config.log.samples_every
    thirds = 1 if config.train.times == 'discrete' else THIRDS
    self._cells = [
      Cell(name, group, third)
      for name, strategy in system.strategies.items()
      for group in range(strategy.num_groups)
      for third in range(thirds)
    ]
    count = min(max(EVALUATIONS // len(self._cells), 1), len(source))
    batch = source[np.arange(count)]
    self._x, self._label = batch['x'], batch['label'].astype(np.int32)
    self._alpha, self._moves = _levels(system, self._cells, count, thirds)
    batch_sharded, replicated = sharding.batch_sharded(mesh), sharding.replicated(mesh)
    process, shape, classes = system.process, tuple(config.data.shape), config.model.classes

    @functools.partial(jax.jit, out_shardings=replicated)
    def measure(params, x, label, seeds, alpha, moves):
      predict = system.predictor.bind(params, label if classes else None)
      x, z = from_uint8(x), sampling.latents(seeds, shape)
      return losses.loss(predict, process, x, z, alpha, moves, 'active')

    self._measure = measure
    self._shard = jax.jit(lambda given: given, out_shardings=batch_sharded)

  def __call__(self, state: TrainState, images: int, logger: Logger):
    """Writes a row to metrics.jsonl, and says if the loss has turned."""
    params = sharding.replicate(self._mesh, state.ema)
    examples, found = len(self._x), []
    for rows, valid in padded_batches(
      examples * len(self._cells), self._config.sampling.batch, self._mesh.size
    ):
      e = rows % examples
      given = self._x[e], self._label[e], e.astype(np.uint32), self._alpha[rows], self._moves[rows]
      losses_of_rows = self._measure(params, *self._shard(given))
      found.append(np.asarray(losses_of_rows, np.float64)[:valid])
      if self._stop.agree():
        return
    means = np.concatenate(found).reshape(-1, examples).mean(1)
    logger.record(int(state.step), summary(self._cells, means))
    if distributed.is_primary() and (warning := turned(files.read_rows(self._metrics))):
      console.log(f'{images:,} images: {warning}')

  def catch_up(self, state: TrainState, logger: Logger):
    """Writes the row of a resumed step that was saved, but stopped before it was evaluated."""
    images, step = int(state.step) * self._config.train.batch, int(state.step)
    due = images // self.every > (images - self._config.train.batch) // self.every
    done = distributed.is_primary() and any(
      row.get('step') == step and 'validation_loss' in row for row in files.read_rows(self._metrics)
    )
    if step and due and not distributed.from_process_0(done):
      self(state, images, logger)


def _levels(
  system: System, cells: Sequence[Cell], count: int, thirds: int
) -> tuple[Float[np.ndarray, 'n k'], Float[np.ndarray, 'n k']]:
  """The signal levels of the examples of every cell, and 1 for the groups whose loss counts."""
  alpha, moves = [], []
  for cell in cells:
    strategy = system.strategies[cell.strategy]
    plan = strategy.schedule(_orders(strategy, count))
    own = np.flatnonzero(strategy.indices == cell.group)
    start, end = (np.asarray(v)[:, own[0]] for v in (plan.start, plan.end))
    way = (cell.third + (np.arange(count) + 0.5) / count) / thirds if thirds > 1 else 0
    t = (end - way * (end - start)).astype(end.dtype)
    alpha.append(np.asarray(training_step.levels(system, plan, t)[0]))
    moves.append(np.zeros_like(alpha[-1]))
    moves[-1][:, own] = 1
  return np.concatenate(alpha), np.concatenate(moves)


def _orders(strategy: Strategy, count: int) -> Int[np.ndarray, 'n k']:
  """The strategy's order for every example, or a fixed one of each if it is random."""
  k = strategy.num_groups
  if strategy.order is not None:
    return np.tile(strategy.order, (count, 1))
  return np.stack([np.random.default_rng(i).permutation(k) for i in range(count)])


def summary(cells: Sequence[Cell], means: Float[np.ndarray, ' cells']) -> dict:
  """A row: the mean over strategies of the mean over groups, every group's, and their thirds'."""
  thirds: dict[str, list[list[float]]] = {}
  for cell, mean in zip(cells, means, strict=True):
    groups = thirds.setdefault(cell.strategy, [])
    if cell.third == 0:
      groups.append([])
    groups[-1].append(float(mean))
  groups = {name: [float(np.mean(third)) for third in part] for name, part in thirds.items()}
  return {
    'validation_loss': float(np.mean([np.mean(part) for part in groups.values()])),
    'validation_loss_of_groups': groups,
    'validation_loss_of_thirds': thirds,
  }


def turned(rows: Sequence[Mapping]) -> str:
  """A warning if the held-out loss has now risen RISES times while the training loss fell, or ''.

  rows: of metrics.jsonl. It is said once: not if the evaluation before could say it too.
  """
  points = list(_points(rows))
  if not _rises(points) or _rises(points[:-1]):
    return ''
  (first, before, _), (_, now, _) = points[-RISES - 1], points[-1]
  return (
    f'the held-out loss has risen {RISES} times in a row, from {before:.4g} at {first:,} images to '
    f'{now:.4g}, while the training loss fell: the model may be learning its examples by heart'
  )


def _rises(points):
  last = points[-RISES - 1 :]
  if len(last) <= RISES or None in (last[0][2], last[-1][2]):
    return False
  rising = all(b[1] > a[1] for a, b in itertools.pairwise(last))
  return rising and last[-1][1] > RISE * last[0][1] and last[-1][2] < last[0][2]


def _points(rows) -> Iterator[tuple[int, float, float | None]]:
  """Images, held-out loss, and the mean training loss since the evaluation before."""
  before = 0
  for row in rows:
    if 'validation_loss' in row:
      now = row['images']
      loss = [r['loss'] for r in rows if 'loss' in r and before < r['images'] <= now]
      yield now, row['validation_loss'], float(np.mean(loss)) if loss else None
      before = now
