"""Measurements of an experiment: trained models, each evaluated in several ways and seed sets."""

import functools
import json
import pathlib
import re
import sys
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from ml_collections import ConfigDict

from experiments.lib import command, report
from gdm_jax import build, main, solvers
from gdm_jax.config import MODEL, RUN, get
from gdm_jax.evaluation import evaluator
from gdm_jax.evaluation.cells import Cells
from gdm_jax.evaluation.evaluator import Checkpoint, Evaluator
from gdm_jax.evaluation.summary import Scores
from gdm_jax.evaluation.weights import PUBLISHED
from gdm_jax.generation.generator import Generator
from gdm_jax.runtime import sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training import loop
from gdm_jax.training.workdir import adopt_config, check_unchanged, load_ema

COLUMNS = ('model', *evaluator.KEYS)

Row = dict[str, str]


class Model:
  """A trained workdir, ready to be evaluated.

  config: of the study; the workdir's config says what the model is. folder: holds features and
  reference. share_reference_with: a model evaluated with the same features and reference.
  """

  def __init__(
    self,
    config: ConfigDict,
    workdir: pathlib.Path,
    folder: pathlib.Path,
    share_reference_with: 'Model | None' = None,
  ):
    self.name, self.folder, self._other = workdir.name, folder, share_reference_with
    self.config = config.copy_and_resolve_references()
    adopt_config(self.config, workdir, command.overridden())
    self.mesh = sharding.mesh()
    self.system = build.system(self.config)
    self.checkpoint = Checkpoint(*load_ema(self.config, workdir, self.system, self.mesh))

  @functools.cached_property
  def evaluator(self) -> Evaluator:
    """Made when first needed: it trains a classifier and reads all real images."""
    other = self._other and self._other.evaluator
    folder = self.folder / evaluator.FOLDER
    return Evaluator(self.config, self.system, folder, self.mesh, other)

  def key(self, config: ConfigDict) -> Row:
    """The columns that identify a measurement."""
    return {'model': self.name, **self.evaluator.key(config, self.checkpoint)}

  def row(self, config: ConfigDict, scores: Scores) -> dict:
    """A row of results.csv."""
    return {'model': self.name, **self.evaluator.row(config, scores, self.checkpoint)}

  def samples(self, count: int) -> Float[np.ndarray, 'count *grid c']:
    """Images of the first seeds, generated as `config.sampling` says."""
    seeds = np.arange(count, dtype=np.uint32)
    generator = Generator.from_config(self.config, self.system, self.mesh)
    table = build.sampling_table(self.config, self.system)
    labels = build.sampling_labels(self.config, seeds)
    return generator.sample(self.checkpoint.params, table, seeds, labels=labels)

  def with_sampling(self, seeds: str, **sampling) -> ConfigDict:
    """The model's config with other seeds to evaluate, and other values in config.sampling."""
    config = self.config.copy_and_resolve_references()
    config.sampling.update(sampling)
    config.evaluation.seeds = seeds
    return config


class Study:
  """The folder workdir/NAME with results.csv, whose missing rows a rerun measures, and pictures.

  A row is one of `evaluation.csv` (`evaluator.KEYS` and `VALUES`) and the model's name, unless a
  study has other columns. With a published network as the judge, of `evaluation.features`, the
  folder is NAME_JUDGE, so that its report stands beside the classifier's.
  """

  def __init__(
    self,
    name: str,
    workdir: pathlib.Path,
    keys: Sequence[str] = COLUMNS,
    values: Sequence[str] = evaluator.VALUES,
    judge: str = '',
  ):
    self.folder = workdir / (f'{name}_{judge}' if judge in PUBLISHED else name)
    self.cells = Cells(self.folder / 'results.csv', keys, values)

  def models(self, config: ConfigDict, workdirs: Sequence[pathlib.Path]) -> Iterator[Model]:
    """One model after another. Raises ConfigError if two have the same name."""
    names = [path.name for path in workdirs]
    if duplicates := {name for name in names if names.count(name) > 1}:
      raise ConfigError(f'--models: several are named {min(duplicates)}')
    first = None
    of_others = config.copy_and_resolve_references()
    of_others.checkpoint.model = ''  # --model says what the experiment's own workdir holds
    for path in workdirs:
      own = path == self.folder.parent
      model = Model(config if own else of_others, path, self.folder, first)
      first = first or model
      yield model

  def measure(self, model: Model, repeats: int, **sampling) -> list[Row]:
    """The rows of `config.sampling` with these changes, from `repeats` sets of seeds."""
    rows = []
    for seeds in disjoint_seed_sets(model.config.evaluation.seeds, repeats):
      config = model.with_sampling(seeds, **sampling)

      def scores(config=config):
        return model.row(config, model.evaluator(config, model.checkpoint))

      rows.append(self.cells.measure(model.key(config), scores))
    return rows

  def publish(
    self,
    doc: str,
    table: report.Table,
    findings: Sequence[str],
    pictures: Sequence[pathlib.Path],
    rows: pd.DataFrame,
    config: ConfigDict,
    num_printed: int = 0,
  ):
    """Writes report.html in the study's folder and prints the findings (`report.publish`)."""
    report.publish(self.folder, doc, table, findings, pictures, rows, config, num_printed)


def identity(config: ConfigDict, *keys: str) -> str:
  """A digest of these parts of a config, for a column of results.csv.

  With it a rerun under another config measures again and does not reuse the old row.
  """
  parts = {key: get(config, key) for key in keys}
  text = json.dumps(parts, sort_keys=True, default=lambda part: part.to_dict())
  return f'{zlib.crc32(text.encode()):08x}'


def train(workdir: pathlib.Path, arguments: Sequence[str]):
  """Trains a model as the arguments say, or resumes it; exits if training fails.

  A workdir that has been trained to the end is left alone. Raises ConfigError for one of another
  config.
  """
  argv = ['', *arguments, f'--workdir={workdir}']
  config = main.parse(argv).config
  if (workdir / 'checkpoints' / str(loop.num_steps(config))).is_dir():
    check_unchanged(config, workdir, MODEL + RUN)
  elif code := main.main(argv):
    sys.exit(code)


def workdirs(models: str, workdir: pathlib.Path) -> list[pathlib.Path]:
  """The workdirs of a flag such as runs/a,runs/b; by default the experiment's own."""
  return [pathlib.Path(path) for path in models.split(',')] if models else [workdir]


def disjoint_seed_sets(seeds: str, repeats: int) -> list[str]:
  """Disjoint sets of as many seeds: '0-99' gives '0-99', '100-199' and so on."""
  width = max(int(n) for n in re.findall(r'\d+', seeds)) + 1

  def moved(by):
    return re.sub(r'\d+', lambda n: str(int(n[0]) + by), seeds)

  return [moved(i * width) for i in range(repeats)]


def budgets_of(rows: pd.DataFrame, budgets: Sequence[int]) -> pd.DataFrame:
  """The rows of each budget of evaluations, with the column `budget`; a row may serve several.

  A row belongs to a budget if its solver takes as many steps with it.
  """
  parts = [
    rows[
      [
        solvers.get_solver(solver).steps(budget) == int(steps)
        for solver, steps in zip(rows['solver'], rows['steps'], strict=True)
      ]
    ].assign(budget=budget)
    for budget in budgets
  ]
  return pd.concat(parts).sort_index(kind='stable')


def statistics(rows: pd.DataFrame, by: str | list[str]) -> pd.DataFrame:
  """`mean` and `deviation` of the distances of each group of rows, and both as `text`.

  `kernel` is the same text of the kernel distances: of few images a Frechet distance is mostly bias
  (`distances.kernel`). First groups first.
  """
  groups = rows.groupby(by, sort=False)
  columns = {}
  for name, column in {'': 'distance', 'kernel_': 'kernel'}.items():
    values = groups[['model', column]].apply(
      lambda group, c=column: pd.Series(mean_and_deviation(group, c), ['mean', 'deviation'])
    )
    columns |= {f'{name}{key}': values[key] for key in values}
  table = pd.DataFrame(columns)
  text, kernel = (
    [f'{mean:.4g} ± {deviation:.2g}' for mean, deviation in table[keys].to_numpy()]
    for keys in (['mean', 'deviation'], ['kernel_mean', 'kernel_deviation'])
  )
  return table[['mean', 'deviation']].assign(text=text, kernel=kernel)


def mean_and_deviation(rows: pd.DataFrame, column: str = 'distance') -> tuple[float, float]:
  """Of a column of the rows: over models if there are several, otherwise over the sets of seeds.

  A model's sets of seeds share the luck of its training, so they are averaged first. The deviation
  is that of a sample (n - 1); of a single value it is 0.
  """
  numbers = rows.assign(**{column: pd.to_numeric(rows[column])})  # '' of older rows is nan
  means = numbers.groupby('model', sort=False)[column].mean()
  values = means if len(means) > 1 else numbers[column]
  return float(values.mean()), float(values.std()) if len(values) > 1 else 0.0


def distances_as_text(rows: pd.DataFrame) -> str:
  """The rows' distances, to four digits."""
  return ' '.join(f'{float(value):.4g}' for value in rows['distance'])


def spread_caption(rows: pd.DataFrame) -> str:
  """What `mean_and_deviation` is over, as a sentence."""
  models, seeds, images = rows['model'].nunique(), rows['seeds'].nunique(), rows['images'].iloc[0]
  if models > 1:
    return (
      f'Means and standard deviations are over {models} trained models, each the mean of '
      f'{seeds} sets of {images} seeds.'
    )
  return (
    f'Means and standard deviations are over {seeds} sets of {images} seeds of one '
    'model: they do not tell the luck of its training.'
  )
