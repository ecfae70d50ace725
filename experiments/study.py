"""Cells of an experiment: trained models, each evaluated in several ways, from several seeds."""

import pathlib
import re
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from ml_collections import ConfigDict

from gdm_jax import build, main, sharding
from gdm_jax.config import ConfigError
from gdm_jax.evaluation import evaluator
from gdm_jax.evaluation.cells import Cells
from gdm_jax.training.checkpoint import adopt_model, trained

COLUMNS = ('model', *evaluator.KEYS)


class Model:
  """A trained workdir, ready to be evaluated; the features and their reference are the study's."""

  def __init__(self, config: ConfigDict, workdir: pathlib.Path, folder: pathlib.Path):
    """config: of the study; the model itself is as the workdir's config describes it."""
    self.name = workdir.name
    self.config = config.copy_and_resolve_references()
    adopt_model(self.config, workdir, main.overridden(sys.argv))
    mesh = sharding.mesh()
    self.system = build.system(self.config)
    self.params, self.step = trained(self.config, workdir, self.system, mesh)
    self.evaluator = evaluator.Evaluator(self.config, self.system, folder / 'evaluation', mesh)


class Study:
  """The rows of workdir/NAME/results.csv, which a rerun completes, and where its pictures go.

  Every cell is a row of `evaluation.csv` (see `evaluator.KEYS` and `VALUES`) and the model's name.
  """

  def __init__(self, name: str, workdir: pathlib.Path):
    self.folder = workdir / name
    self.cells = Cells(self.folder / 'results.csv', COLUMNS, evaluator.VALUES)

  def models(self, config: ConfigDict, workdirs: Sequence[pathlib.Path]) -> Iterator[Model]:
    """One model after another. Raises ConfigError where two have the same name."""
    names = [path.name for path in workdirs]
    if twice := {name for name in names if names.count(name) > 1}:
      raise ConfigError(f'--models: several are named {min(twice)}')
    for path in workdirs:
      yield Model(config, path, self.folder)

  def measure(self, model: Model, repeats: int, **sampling) -> list[dict[str, str]]:
    """The rows of `config.sampling` with these changes, from `repeats` sets of seeds."""
    found = []
    for seeds in repeated(model.config.evaluation.seeds, repeats):
      config = model.config.copy_and_resolve_references()
      config.sampling.update(sampling)
      config.evaluation.seeds = seeds
      key = {'model': model.name, **model.evaluator.key(config, model.step)}
      if key not in self.cells:
        scores = model.evaluator(config, model.params)
        row = model.evaluator.row(config, scores, model.step)
        self.cells.add({'model': model.name, **row})
      found.append(self.cells.get(key))
    return found


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
  """Of the rows' distances; the deviation (n - 1) of a single row is 0."""
  values = [float(row['distance']) for row in rows]
  return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
