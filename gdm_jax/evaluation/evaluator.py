"""The evaluation run: samples of a model against real images, and a row that says what was done."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from gdm_jax import build, figures, solvers
from gdm_jax.build import System
from gdm_jax.config import parse_seeds
from gdm_jax.evaluation import archive, features, reference, summary
from gdm_jax.evaluation.cells import Cells
from gdm_jax.evaluation.summary import Collector, Scores
from gdm_jax.generation.generator import Generator

SAMPLED = ('strategy', 'order', 'cuts', 'steps', 'solver', 'guidance', 'labels', 'seeds')
AGAINST = ('features', 'identity', 'data', 'split')
MODEL = ('checkpoint', 'parameters')
KEYS = (*MODEL, *SAMPLED, *AGAINST)
VALUES = (
  *('metric', 'distance', 'kernel', 'kernel_error', 'precision', 'recall'),
  *('images', 'real', 'compared', 'evaluations', 'trained_images'),
)


class DivergedError(RuntimeError):
  """Samples that cannot be evaluated."""


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
  """A model's parameters, and the checkpoint that they are of."""

  params: dict
  step: int

  @functools.cached_property
  def digest(self) -> str:
    """What tells them from those of another run that got as far."""
    return archive.digest(self.params)


class Evaluator:
  """Samples and measures; features, reference and programs are made once.

  folder: where the classifier and the reference's statistics are kept; like: an evaluator of
  another model, whose features and reference serve this one too. Raises ConfigError and DataError
  (`features.load_features`, `reference.obtain`).
  """

  def __init__(
    self,
    config: ConfigDict,
    system: System,
    folder: pathlib.Path,
    mesh: Mesh,
    like: 'Evaluator | None' = None,
  ):
    self._system, self._shape, self._mesh = system, config.data.shape, mesh
    self.features = like.features if like else features.load_features(config, folder)
    self.real, self.about = (
      (like.real, like.about) if like else reference.obtain(config, self.features, folder, mesh)
    )
    self._of = self.features.compiled(mesh)
    self._generators: dict[tuple, Generator] = {}

  def key(self, config: ConfigDict, weights: Weights) -> dict[str, str]:
    """What tells an evaluation from another: the columns KEYS. `config.sampling` says how."""
    about = {key: str(self.about[key]) for key in AGAINST}
    sampled = settings(config, self._system, weights)
    return {**sampled, 'seeds': config.evaluation.seeds, **about}

  def __call__(
    self,
    config: ConfigDict,
    weights: Weights,
    stopped: Callable[[], bool] = lambda: False,
  ) -> Scores | None:
    """The distances of the images of `evaluation.seeds`, made as `config.sampling` says.

    None where it was asked to stop, after any batch, by `stopped`. Raises DivergedError where an
    image is not finite, and ConfigError.
    """
    c, seeds = config.sampling, parse_seeds(config, 'evaluation.seeds')
    table = build.sampling_table(config, self._system.strategies)
    generator = self._generator(c.solver, c.guidance)
    collector = Collector()
    labels = build.sampling_labels(config, seeds)
    for some, x in generator.sample_batches(
      weights.params, table, seeds, labels, c.batch, 'evaluation'
    ):
      self.collect([collector], x, some)
      if stopped():
        return None
    return summary.scores(collector.summary(), self.real)

  def collect(
    self,
    collectors: Sequence[Collector],
    x: Float[Array, 'padded h w c'],
    seeds: Int[np.ndarray, ' n'],
  ):
    """Adds features of generated images: each collector gets those of the seeds, one after another.

    Raises DivergedError where one is not finite.
    """
    found, finite = self._of(x)
    finite, each = summary.everywhere(finite), len(x) // len(collectors)
    for i, collector in enumerate(collectors):
      rows = slice(i * each, i * each + len(seeds))
      check_finite(finite[rows], seeds)
      collector.add(found, rows)

  def row(self, config: ConfigDict, scores: Scores, weights: Weights) -> dict:
    """A row of evaluation.csv: KEYS and VALUES."""
    c = config.sampling
    evaluations = solvers.get_solver(c.solver).cost(sum(c.steps))
    return {
      **self.key(config, weights),
      'metric': self.features.metric,
      **{key: f'{value:.6g}' for key, value in dataclasses.asdict(scores).items()},
      'images': len(parse_seeds(config, 'evaluation.seeds')),
      'real': self.real.moments.count,
      'evaluations': '' if evaluations is None else evaluations * (2 if c.guidance != 1 else 1),
      'trained_images': weights.step * config.train.batch,
    }

  def _generator(self, solver, guidance):
    if (solver, guidance) not in self._generators:
      self._generators[solver, guidance] = Generator(
        self._system, self._shape, solver, self._mesh, guidance
      )
    return self._generators[solver, guidance]


def settings(config: ConfigDict, system: System, weights: Weights) -> dict[str, str]:
  """Which model, sampled how: the columns MODEL and SAMPLED. Raises ConfigError."""
  c = config.sampling
  name, order = build.sampling_order(config, system.strategies)
  values = {
    'checkpoint': weights.step,
    'parameters': weights.digest,
    'strategy': name,
    'order': _joined(order),
    'cuts': _joined(c.cuts or system.strategies[name].cuts or ()),
    'steps': _joined(c.steps),
    'solver': c.solver,
    'guidance': c.guidance,
    'labels': _joined(c.labels),
    'seeds': c.seeds,
  }
  return {key: str(value) for key, value in values.items()}


def cells(workdir: pathlib.Path) -> Cells:
  """evaluation.csv of a workdir."""
  return Cells(workdir / 'evaluation.csv', KEYS, VALUES)


def evaluate(
  config: ConfigDict,
  evaluator: Evaluator,
  weights: Weights,
  rows: Cells,
  stopped: Callable[[], bool] = lambda: False,
) -> dict[str, str] | None:
  """The row of a checkpoint: measured and added, unless it is there already.

  None where it was asked to stop. Raises DivergedError and ConfigError.
  """
  key = evaluator.key(config, weights)
  if key not in rows:
    scores = evaluator(config, weights, stopped)
    if scores is None:
      return None
    rows.add(evaluator.row(config, scores, weights))
  return rows.get(key)


def check_finite(flags: Bool[np.ndarray, ' n'], seeds: Int[np.ndarray, ' n']):
  """Raises DivergedError naming the seeds whose images are not finite."""
  if not flags.all():
    raise DivergedError(
      f'{(~flags).sum()} of the images of seeds {seeds[0]} to {seeds[-1]} hold NaN or infinity, '
      f'the first that of seed {seeds[np.argmin(flags)]}: the model or the solver diverged'
    )


def readable(row: dict[str, str]) -> str:
  """A row in words: what was measured, and everything that it depends on."""
  kernel = 'KID' if row['features'] == 'inception' else 'kernel distance'
  given = [f'{name} {row[name]}' for name in ('cuts', 'labels') if row[name]]
  given += [f'guidance {row["guidance"]}'] * (float(row['guidance']) != 1)
  counts = {name: int(row[name]) for name in ('images', 'real', 'compared', 'trained_images')}
  lines = (
    f'{row["metric"]} {float(row["distance"]):.4g}',
    f'{kernel} {float(row["kernel"]):.3g} ± {float(row["kernel_error"]):.1g}, precision '
    f'{float(row["precision"]):.3f}, recall {float(row["recall"]):.3f}, of {counts["compared"]:,} '
    'features of each',
    f'{counts["images"]:,} samples (seeds {row["seeds"]}) of checkpoint {row["checkpoint"]} '
    f'({counts["trained_images"]:,} images, parameters {row["parameters"]})',
    ', '.join(
      [
        f'strategy {row["strategy"]}, order {row["order"]}, {row["solver"]}, {row["steps"]} steps',
        f'{row["evaluations"] or "adaptively many"} evaluations',
        *given,
      ]
    ),
    f'against {counts["real"]:,} images of {row["data"]}, {row["split"]}; '
    f'features {row["features"]} {row["identity"]}',
  )
  return '\n'.join(lines)


def plot(file: pathlib.Path, cells: Cells, like: dict[str, str]):
  """The distance against millions of training images, of the rows that differ in nothing else."""
  same = [key for key in KEYS if key != 'checkpoint']
  rows = [row for row in cells.rows if all(row[key] == like[key] for key in same)]
  points = sorted((int(row['trained_images']) / 1e6, float(row['distance'])) for row in rows)
  figures.plot_lines(
    file, {like['strategy']: points}, xlabel='million images', ylabel=like['metric'], yscale='log'
  )


def _joined(values):
  return '-'.join(f'{value:g}' if isinstance(value, float) else str(value) for value in values)
