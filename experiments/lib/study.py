"""Cells of an experiment: trained models, each evaluated in several ways, from several seeds."""

import functools
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments.lib import command
from gdm_jax import build, main
from gdm_jax.evaluation import evaluator
from gdm_jax.evaluation.cells import Cells
from gdm_jax.evaluation.summary import Scores
from gdm_jax.runtime import sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training import loop
from gdm_jax.training.checkpoint import adopt_model, check_unchanged, trained

COLUMNS = ('model', *evaluator.KEYS)


class Model:
  """A trained workdir, ready to be evaluated."""

  def __init__(
    self,
    config: ConfigDict,
    workdir: pathlib.Path,
    folder: pathlib.Path,
    like: 'Model | None' = None,
  ):
    """config: of the study; what the model is, its workdir's config says.

    folder: where features and reference are kept; like: a model that is evaluated by the same.
    """
    self.name, self.folder, self._like = workdir.name, folder, like
    self.config = config.copy_and_resolve_references()
    adopt_model(self.config, workdir, command.overridden())
    self.mesh = sharding.mesh()
    self.system = build.system(self.config)
    self.weights = evaluator.Checkpoint(*trained(self.config, workdir, self.system, self.mesh))

  @functools.cached_property
  def evaluator(self) -> evaluator.Evaluator:
    """Made when first needed: it trains a classifier and sees all real images."""
    like = self._like and self._like.evaluator
    return evaluator.Evaluator(
      self.config, self.system, self.folder / 'evaluation', self.mesh, like
    )

  def key(self, config: ConfigDict) -> dict[str, str]:
    """What tells a cell from another."""
    return {'model': self.name, **self.evaluator.key(config, self.weights)}

  def row(self, config: ConfigDict, scores: Scores) -> dict:
    """A row of results.csv."""
    return {'model': self.name, **self.evaluator.row(config, scores, self.weights)}

  def changed(self, seeds: str, **sampling) -> ConfigDict:
    """The model's config with other seeds to evaluate, and other values in config.sampling."""
    config = self.config.copy_and_resolve_references()
    config.sampling.update(sampling)
    config.evaluation.seeds = seeds
    return config


class Study:
  """The rows of workdir/NAME/results.csv, which a rerun completes, and where its pictures go.

  Every cell is a row of `evaluation.csv` (see `evaluator.KEYS` and `VALUES`) and the model's name,
  unless a study has columns of its own.
  """

  def __init__(
    self,
    name: str,
    workdir: pathlib.Path,
    keys: Sequence[str] = COLUMNS,
    values: Sequence[str] = evaluator.VALUES,
  ):
    self.folder = workdir / name
    self.cells = Cells(self.folder / 'results.csv', keys, values)

  def models(self, config: ConfigDict, workdirs: Sequence[pathlib.Path]) -> Iterator[Model]:
    """One model after another. Raises ConfigError where two have the same name."""
    names = [path.name for path in workdirs]
    if twice := {name for name in names if names.count(name) > 1}:
      raise ConfigError(f'--models: several are named {min(twice)}')
    first = None
    for path in workdirs:
      model = Model(config, path, self.folder, first)
      first = first or model
      yield model

  def measure(self, model: Model, repeats: int, **sampling) -> list[dict[str, str]]:
    """The rows of `config.sampling` with these changes, from `repeats` sets of seeds."""
    found = []
    for seeds in repeated(model.config.evaluation.seeds, repeats):
      config = model.with_sampling(seeds, **sampling)
      if model.key(config) not in self.cells:
        self.cells.add(model.row(config, model.evaluator(config, model.weights)))
      found.append(self.cells.get(model.key(config)))
    return found


def train(workdir: pathlib.Path, arguments: Sequence[str]):
  """Trains a model as the arguments say, or goes on; exits where training does.

  A workdir that has been trained so long is left alone. Raises ConfigError for one of another
  config.
  """
  argv = ['', *arguments, f'--workdir={workdir}']
  config = main.parse(argv).config
  if (workdir / 'checkpoints' / str(loop.num_steps(config))).is_dir():
    check_unchanged(config, workdir)
  elif code := main.main(argv):
    sys.exit(code)


def paths(models: str, workdir: pathlib.Path) -> list[pathlib.Path]:
  """The workdirs of a flag such as runs/a,runs/b; without any, the experiment's own."""
  return [pathlib.Path(path) for path in models.split(',')] if models else [workdir]


def repeated(seeds: str, repeats: int) -> list[str]:
  """As many disjoint sets of seeds: '0-99' gives '0-99', '100-199' and so on."""
  width = max(int(n) for n in re.findall(r'\d+', seeds)) + 1

  def moved(by):
    return re.sub(r'\d+', lambda n: str(int(n[0]) + by), seeds)

  return [moved(i * width) for i in range(repeats)]


def mean_and_deviation(rows: Sequence[dict[str, str]]) -> tuple[float, float]:
  """Of the rows' distances: over models where there are several, else over the sets of seeds.

  A model's sets of seeds share the luck of its training, so they are averaged first. The deviation
  is that of a sample (n - 1); of a single value it is 0.
  """
  models: dict[str, list[float]] = {}
  for row in rows:
    models.setdefault(row['model'], []).append(float(row['distance']))
  each = list(models.values())
  values = [np.mean(some) for some in each] if len(each) > 1 else each[0]
  return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def over_what(rows: Sequence[dict[str, str]]) -> str:
  """What `mean_and_deviation` is over, as a sentence."""
  models, seeds = ({row[key] for row in rows} for key in ('model', 'seeds'))
  if len(models) > 1:
    return (
      f'Means and standard deviations are over {len(models)} trained models, each the mean of '
      f'{len(seeds)} sets of {rows[0]["images"]} seeds.'
    )
  return (
    f'Means and standard deviations are over {len(seeds)} sets of {rows[0]["images"]} seeds of one '
    'model: they do not tell the luck of its training.'
  )
