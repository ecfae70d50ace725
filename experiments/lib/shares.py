"""Samples of a model's strategies that are right or wrong by a rule: how many are right."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from ml_collections import ConfigDict

from experiments.lib import command, report
from experiments.lib.study import Model, Study, disjoint_seed_sets, workdirs
from gdm_jax import build, figures, solvers
from gdm_jax.config import parse_seeds
from gdm_jax.evaluation import evaluator
from gdm_jax.generation.generator import Generator
from gdm_jax.runtime.errors import ConfigError

KEYS = ('model', 'network', *evaluator.MODEL, *evaluator.SAMPLED)

SHOWN = 10  # images of each strategy

Images = Float[np.ndarray, 'n h w c']


@dataclasses.dataclass(frozen=True)
class Rule:
  """What makes an image of a data set right.

  data: `data.name`, which is the experiment's as well. scores: of images, the columns `values`, of
  which `right` is the number of images that are.
  """

  data: str
  values: tuple[str, ...]
  right: str
  scores: Callable[[Images], dict[str, object]]
  summarise: Callable[[pd.DataFrame], tuple[pd.DataFrame, list[str]]]


def run(
  rule: Rule,
  doc: str,
  config: ConfigDict,
  workdir: pathlib.Path,
  models: str,
  repeats: int,
  budgets: str,
):
  """Evaluates every strategy of every model and publishes what was found.

  Raises ConfigError for a model of other data.
  """
  study = Study(rule.data, workdir, KEYS, ('images', *rule.values, 'trained_images'))
  evaluations, rows, pictures = command.numbers('budgets', budgets), [], []
  for model in study.models(config, workdirs(models, workdir)):
    network = model.config.model.name
    if model.config.data.name != rule.data:
      raise ConfigError(f'{model.name} is a model of {model.config.data.name}, not of {rule.data}')
    if any(row['network'] == network for row in rows):
      raise ConfigError(f'--models={models}: several are of model.name = {network}')
    rows += measure(study, model, evaluations, repeats, rule.scores)
    pictures.append(study.folder / f'{network}.png')
    show(pictures[-1], model, max(evaluations))
  if not rows:
    raise ConfigError(f'--budgets={budgets}: too few for the groups of every strategy')
  rows = pd.DataFrame(rows).drop_duplicates()
  picture = study.folder / 'figure.png'
  draw(picture, totals(rows, rule.right), f'{rule.right}, % of images')
  study.publish(doc, *rule.summarise(rows), [picture, *pictures], rows, model.config)


def measure(
  study: Study,
  model: Model,
  budgets: Sequence[int],
  repeats: int,
  scores: Callable[[Images], dict[str, object]],
) -> list[dict[str, str]]:
  """The rows of every strategy and budget of evaluations, a set of seeds each.

  Budgets that are too few for a strategy's groups are left out.
  """
  rows, solver = [], build.solver(model.config)
  for name, strategy in model.system.strategies.items():
    for steps in map(solver.steps, budgets):
      if steps < strategy.fewest_steps:
        continue
      for seeds in disjoint_seed_sets(model.config.evaluation.seeds, repeats):
        config = model.with_sampling(seeds, strategy=name, steps=(steps,))
        config.sampling.seeds = seeds
        key = {
          'model': model.name,
          'network': config.model.name,
          **evaluator.provenance(config, model.system, model.checkpoint),
        }
        rows.append(study.cells.measure(key, functools.partial(_values, model, config, scores)))
  return rows


def _values(model, config, scores):
  x = generate(model, config, parse_seeds(config))
  trained = model.checkpoint.step * config.train.batch
  return {'images': len(x), **scores(x), 'trained_images': trained}


def generate(model: Model, config: ConfigDict, seeds: np.ndarray) -> Images:
  """The images of seeds, as `config.sampling` says."""
  c = config.sampling
  generator = Generator.from_config(config, model.system, model.mesh)
  table, labels = build.sampling_table(config, model.system), build.sampling_labels(config, seeds)
  params = model.checkpoint.params
  batches = generator.sample_batches(params, table, seeds, labels, c.batch, c.strategy)
  return np.concatenate([generator.to_host(x, len(batch)) for batch, x in batches])


def show(file: pathlib.Path, model: Model, budget: int):
  """A line of images for each strategy, from the same seeds."""
  lines, steps = [], (build.solver(model.config).steps(budget),)
  for name, strategy in model.system.strategies.items():
    if steps[0] < strategy.fewest_steps:
      continue
    config = model.with_sampling(model.config.evaluation.seeds, strategy=name, steps=steps)
    images = generate(model, config, parse_seeds(config, 'evaluation.seeds')[:SHOWN])
    lines.append((name, [('', image) for image in images]))
  figures.sheet(file, lines)


def totals(rows: pd.DataFrame, right: str) -> pd.DataFrame:
  """The share that is right, by line, network and evaluations, and strategy, fewest groups first.

  right: the column with the number of images that are. The standard error is over all seeds.
  """
  numbers = rows.astype({'images': int, right: int})
  numbers['groups'] = rows['order'].str.count('-') + 1
  numbers['line'] = [
    f'{network}, {solvers.get_solver(solver).cost(int(steps))}'
    for network, solver, steps in zip(rows['network'], rows['solver'], rows['steps'], strict=True)
  ]
  numbers = numbers.sort_values('groups', kind='stable')
  found = numbers.groupby(['line', 'strategy'], sort=False)[['images', right]].sum()
  found = found.loc[numbers.loc[rows.index, 'line'].unique()]
  share = found[right] / found['images']
  return found.assign(share=share, error=np.sqrt(share * (1 - share) / found['images']))


def summarise(rows: pd.DataFrame, right: str) -> tuple[pd.DataFrame, list[str]]:
  """The table, a line for each network and number of evaluations, and what any rule finds.

  right: the column with the number of images that are right, which is what they are called.
  """
  found = totals(rows, right)
  texts = [f'{100 * row.share:.1f} ± {100 * row.error:.1f}%' for row in found.itertuples()]
  cells = pd.Series(texts, found.index)
  table = report.pivot(cells, 'network, evaluations', found.index.unique('strategy'))
  findings = []
  for line, group in found.groupby('line', sort=False):
    names = group.sort_values('share', ascending=False, kind='stable').index.get_level_values(1)
    findings.append(f'{line} evaluations, from most to least often {right}: {", ".join(names)}.')
  images = sorted(found['images'].unique())
  return table, [
    *findings,
    f'Each is of {" or ".join(f"{n:,}" for n in images)} images of one model a network; ± is a '
    'standard error and does not tell the luck of training.',
  ]


def draw(file: pathlib.Path, found: pd.DataFrame, ylabel: str):
  """A point with its standard error for each strategy, network and budget, in percent."""
  names = list(found.index.unique('strategy'))
  lines = {
    line: [
      (names.index(row.Index[1]), 100 * row.share, 100 * row.error) for row in group.itertuples()
    ]
    for line, group in found.groupby('line', sort=False)
  }
  figures.plot_points(file, names, lines, ylabel=ylabel)
