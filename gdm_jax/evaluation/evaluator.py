"""The evaluation run: samples of a model against real images, as a row with its provenance."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Integer
from ml_collections import ConfigDict
from numpy import ndarray

from gdm_jax import build, figures
from gdm_jax.build import System
from gdm_jax.config import is_guided, parse_seeds
from gdm_jax.evaluation import archive, reference, summary
from gdm_jax.evaluation.cells import Cells
from gdm_jax.evaluation.features import load_features
from gdm_jax.evaluation.summary import Collector, Scores
from gdm_jax.generation.generator import Generator
from gdm_jax.runtime.errors import check_finite
from gdm_jax.typing import AnyArray

FOLDER = 'evaluation'  # in the workdir: the classifier and the statistics

MODEL = ('checkpoint', 'parameters')
SAMPLED = ('strategy', 'order', 'cuts', 'steps', 'rho', 'solver', 'guidance', 'labels', 'seeds')
AGAINST = ('features', 'identity', 'data', 'split', 'fingerprint')
KEYS = (*MODEL, *SAMPLED, *AGAINST)
"""The columns of evaluation.csv that identify a measurement: which model, sampled how, and
compared with what. `parameters`, `identity` and `fingerprint` are those of the model, the features
and the data."""

VALUES = (
  *('metric', 'distance', 'kernel', 'kernel_error', 'precision', 'recall'),
  *('images', 'real', 'compared', 'evaluations', 'trained_images'),
)
"""The columns with the results."""


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
  """A model's parameters, and the step that they are of."""

  params: dict
  step: int

  @functools.cached_property
  def fingerprint(self) -> str:
    """Of the parameters; distinguishes runs with the same step count."""
    return archive.digest(self.params)


class Evaluator:
  """Samples and measures; features, reference and programs are made once.

  folder: where the classifier and the reference's statistics are kept. share_reference_with: an
  evaluator of another model, whose features and reference serve this one too. Raises ConfigError
  and DataError (`features.load_features`, `reference.obtain`).
  """

  def __init__(
    self,
    config: ConfigDict,
    system: System,
    folder: pathlib.Path,
    mesh: Mesh,
    share_reference_with: 'Evaluator | None' = None,
  ):
    self._system, self._mesh = system, mesh
    if other := share_reference_with:
      self.features, self.real, self.about = other.features, other.real, other.about
    else:
      self.features = load_features(config, folder)
      self.real, self.about = reference.obtain(config, self.features, folder, mesh)
    self._extract = self.features.jitted(mesh)
    self._generators: dict[tuple, Generator] = {}

  def key(self, config: ConfigDict, checkpoint: Checkpoint) -> dict[str, str]:
    """The columns KEYS, which identify an evaluation; `config.sampling` says how it samples."""
    about = {key: str(self.about[key]) for key in AGAINST}
    sampled = provenance(config, self._system, checkpoint)
    return {**sampled, 'seeds': config.evaluation.seeds, **about}

  def __call__(
    self,
    config: ConfigDict,
    checkpoint: Checkpoint,
    stopped: Callable[[], bool] = lambda: False,
  ) -> Scores | None:
    """The distances of the images of `evaluation.seeds`, made as `config.sampling` says.

    None if `stopped` returned True after a batch. Raises DivergedError if an image is not finite,
    and ConfigError.
    """
    c, seeds = config.sampling, parse_seeds(config, 'evaluation.seeds')
    table = build.sampling_table(config, self._system)
    labels = build.sampling_labels(config, seeds)
    generator = self._generator(config)
    collector = Collector()
    for batch, x in generator.sample_batches(
      checkpoint.params, table, seeds, labels, c.batch, 'evaluation'
    ):
      self.collect([collector], x, batch)
      if stopped():
        return None
    return summary.scores(collector.summary(), self.real)

  def collect(
    self,
    collectors: Sequence[Collector],
    x: Float[AnyArray, 'padded h w c'],
    seeds: Integer[ndarray, ' n'],
  ):
    """Adds features of generated images: each collector gets those of the seeds, one after another.

    Raises DivergedError if an image is not finite.
    """
    features, finite = self._extract(x)
    finite, images_each = summary.gather_to_host(finite), len(x) // len(collectors)
    for i, collector in enumerate(collectors):
      rows = slice(i * images_each, i * images_each + len(seeds))
      check_finite(finite[rows], lambda j: f'the image of seed {seeds[j]}')
      collector.add(features, rows)

  def row(self, config: ConfigDict, scores: Scores, checkpoint: Checkpoint) -> dict:
    """A row of evaluation.csv: KEYS and VALUES."""
    c = config.sampling
    evaluations = build.solver(config).cost(sum(c.steps))
    return {
      **self.key(config, checkpoint),
      'metric': self.features.metric,
      **{key: f'{value:.6g}' for key, value in dataclasses.asdict(scores).items()},
      'images': len(parse_seeds(config, 'evaluation.seeds')),
      'real': self.real.moments.count if len(self.real.kept) else 'an unknown number of',
      'evaluations': '' if evaluations is None else evaluations * (1 + is_guided(config)),
      'trained_images': checkpoint.step * config.train.batch,
    }

  def _generator(self, config):
    solver, guidance = build.solver(config), build.sampling_guidance(config, self._system)
    key = solver.name, np.asarray(guidance).tobytes(), config.sampling.cache
    if key not in self._generators:
      self._generators[key] = Generator.from_config(config, self._system, self._mesh)
    return self._generators[key]


def provenance(config: ConfigDict, system: System, checkpoint: Checkpoint) -> dict[str, str]:
  """Which model, sampled how: the columns MODEL and SAMPLED. Raises ConfigError."""
  c = config.sampling
  name, order = build.sampling_order(config, system.strategies)
  values = {
    'checkpoint': checkpoint.step,
    'parameters': checkpoint.fingerprint,
    'strategy': name,
    'order': _joined(order),
    'cuts': _joined(c.cuts or system.strategies[name].cuts or ()),
    'steps': _joined(c.steps),
    'rho': '' if c.rho == 1 else f'{c.rho:g}',
    'solver': build.solver(config).name,
    'guidance': '-'.join(map(str, map(float, c.guidance))),
    'labels': _joined(c.labels),
    'seeds': c.seeds,
  }
  return {key: str(value) for key, value in values.items()}


def open_csv(workdir: pathlib.Path) -> Cells:
  """evaluation.csv of a workdir."""
  return Cells(workdir / 'evaluation.csv', KEYS, VALUES)


def evaluate(
  config: ConfigDict,
  evaluator: Evaluator,
  checkpoint: Checkpoint,
  cells: Cells,
  stopped: Callable[[], bool] = lambda: False,
) -> dict[str, str] | None:
  """The row of a checkpoint: measured and added, unless it exists; None if it was stopped.

  Raises DivergedError and ConfigError.
  """

  def measure():
    scores = evaluator(config, checkpoint, stopped)
    return scores and evaluator.row(config, scores, checkpoint)

  return cells.measure(evaluator.key(config, checkpoint), measure)


def describe(row: dict[str, str]) -> str:
  """A row as text: what was measured, and everything that it depends on."""
  kernel = 'KID' if row['features'] == 'inception' else 'kernel distance'
  options = [f'{name} {row[name]}' for name in ('cuts', 'rho', 'labels') if row[name]]
  options += [f'guidance {row["guidance"]}'] * (row['guidance'] != '1.0')
  counts = {name: int(row[name]) for name in ('images', 'compared', 'trained_images')}
  real = f'{int(row["real"]):,}' if row['real'].isdigit() else row['real']
  others = (
    f'{kernel} {float(row["kernel"]):.3g} ± {float(row["kernel_error"]):.1g}, precision '
    f'{float(row["precision"]):.3f}, recall {float(row["recall"]):.3f}, of {counts["compared"]:,} '
    'features of each'
    if counts['compared']
    else f'no {kernel}: the reference holds mean and covariance alone'
  )
  lines = (
    f'{row["metric"]} {float(row["distance"]):.4g}',
    others,
    f'{counts["images"]:,} samples (seeds {row["seeds"]}) of checkpoint {row["checkpoint"]} '
    f'({counts["trained_images"]:,} images, parameters {row["parameters"]})',
    ', '.join(
      [
        f'strategy {row["strategy"]}, order {row["order"]}, {row["solver"]}, {row["steps"]} steps',
        f'{row["evaluations"] or "adaptively many"} evaluations',
        *options,
      ]
    ),
    f'against {real} images of {row["data"]}, {row["split"]}; '
    f'features {row["features"]} {row["identity"]}',
  )
  return '\n'.join(lines)


def plot(file: pathlib.Path, cells: Cells, like: dict[str, str]):
  """Plots distance against training images, of the rows that agree in all other columns."""
  same = [key for key in KEYS if key not in MODEL]
  rows = [row for row in cells.rows if all(row[key] == like[key] for key in same)]
  points = sorted((int(row['trained_images']) / 1e6, float(row['distance'])) for row in rows)
  figures.plot_lines(
    file, {like['strategy']: points}, xlabel='million images', ylabel=like['metric'], yscale='log'
  )


def _joined(values):
  return '-'.join(f'{value:g}' if isinstance(value, float) else str(value) for value in values)
