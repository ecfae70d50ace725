"""Which grouping, which order, how many groups: a table of trained strategies and a recommendation.

  python -m gdm_jax.main --config=configs/digits_groupings.py --config.data.split=train[:80%]
  python -m experiments.choose --config=configs/digits_groupings.py \\
    --config.likelihood.split=train[80%:] --config.sampling.solver=midpoint \\
    --config.sampling.steps=16

Every strategy of a model, or of several (--models=runs/a,runs/b). A strategy trained on one order
keeps it; of others the best by `bound` on --examples real examples is taken, if there are at most
--search groups (see order_search), or else 0..k-1. `bound` is then the upper bound on -log p(x) of
as many other examples along that order, in nats a dimension; the distance is of samples from
--repeats sets of evaluation.seeds, with config.sampling's solver and its total of steps; seconds
an image are those of the second batch of sampling.batch. The last column proposes strategies.*.cuts
for another training (`allocation.cuts_by_loss`).
"""

import functools
import math
import pathlib
import time
from typing import Annotated

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from experiments.lib import command
from experiments.lib.costs import Costs, Order
from experiments.lib.study import (
  COLUMNS,
  Model,
  Study,
  disjoint_seed_sets,
  spread_caption,
  statistics,
  workdirs,
)
from gdm_jax import allocation, build, figures, ordering
from gdm_jax.evaluation import evaluator
from gdm_jax.generation.generator import Generator

VALUES = (
  *evaluator.VALUES,
  *('grouping', 'groups', 'found', 'bound', 'bound_error', 'seconds', 'proposed_cuts'),
)
ERRORS = 2.0  # standard errors that tell two distances apart


def run(
  config: ConfigDict,
  workdir: pathlib.Path,
  *,
  models: str = '',
  repeats: Annotated[int, 2] = 2,
  examples: Annotated[int, 2] = 64,
  levels: int = 8,
  search: int = 6,
):
  """Measures what results.csv lacks, and recommends. Raises ConfigError."""
  study = Study('choose', workdir, COLUMNS, VALUES, judge=config.evaluation.features)
  rows = []
  for model in study.models(config, workdirs(models, workdir)):
    for name in model.system.strategies:
      costs = Costs(model, name, study.folder / 'values.csv', levels, steps=1)
      order, found = best_order(costs, examples, search)
      about = {'grouping': grouping_of(model, name), 'groups': costs.k, 'found': found}
      about |= along(costs, order, range(examples, 2 * examples))
      rows += measure(study, model, name, order, about, repeats)
  rows = pd.DataFrame(rows)
  picture = study.folder / 'figure.png'
  draw(picture, rows)
  study.publish(__doc__, *summarise(rows), [picture], rows, model.config)


def grouping_of(model: Model, strategy: str) -> str:
  """The grouping as the config names it."""
  c = model.config.strategies[strategy]
  return ' '.join([c.grouping, ','.join(map(str, c.groups))]).strip()


def best_order(costs: Costs, examples: int, search: int) -> tuple[Order, str]:
  """The order to take, and why: trained, best by bound, or just the first."""
  if costs.strategy.order:
    return tuple(costs.strategy.order), 'trained'
  if costs.k > min(search, ordering.MOST):
    return tuple(range(costs.k)), 'not searched'
  values = costs.of_pairs('bound', range(examples))
  return ordering.best_order(values.mean(2), costs.k)[0], 'best by bound'


def along(costs: Costs, order: Order, numbers: range) -> dict[str, str]:
  """The bound along an order, nats a dimension, its error, and the cuts that losses propose."""
  each = costs.along('bound', order, numbers).sum(0) / costs.sizes.sum()
  cuts = allocation.cuts_by_loss(costs.along('loss', order, numbers).mean(1).tolist())
  return {
    'bound': f'{each.mean():.6g}',
    'bound_error': f'{each.std(ddof=1) / math.sqrt(len(each)):.3g}',
    'proposed_cuts': ','.join(f'{cut:.2f}' for cut in cuts),
  }


def measure(
  study: Study, model: Model, strategy: str, order: Order, about: dict, repeats: int
) -> list[dict[str, str]]:
  """The rows of a strategy, one a set of seeds."""
  seed_sets = disjoint_seed_sets(model.config.evaluation.seeds, repeats)
  configs = [model.with_sampling(seeds, strategy=strategy, order=order) for seeds in seed_sets]
  seconds = functools.cache(lambda: f'{seconds_an_image(model, configs[0]):.3g}')

  def row(config):
    scores = model.evaluator(config, model.checkpoint)
    return {**model.row(config, scores), **about, 'seconds': seconds()}

  # An existing row may hold costs of other --examples or --levels: those asked for replace them.
  return [
    {**study.cells.measure(model.key(c), functools.partial(row, c)), **about} for c in configs
  ]


def seconds_an_image(model: Model, config: ConfigDict) -> float:
  """Of the second batch: the first compiles."""
  c, table = config.sampling, build.sampling_table(config, model.system)
  generator = Generator.from_config(config, model.system, model.mesh)
  seeds = np.arange(c.batch)
  labels = build.sampling_labels(config, seeds)
  for _ in range(2):
    start = time.perf_counter()
    generator.sample(model.checkpoint.params, table, seeds, labels=labels)
    seconds = time.perf_counter() - start
  return seconds / len(seeds)


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table, lowest distance first, and the recommendation."""
  rows = rows.assign(label=labels(rows))
  summary = statistics(rows, 'label').sort_values('mean', kind='stable')
  first = rows.drop_duplicates('label').set_index('label').loc[summary.index]
  metric = rows['metric'].iloc[0]
  bound = zip(first['bound'].astype(float), first['bound_error'].astype(float), strict=True)
  table = pd.DataFrame(
    {
      'strategy': summary.index,
      'grouping': first['grouping'].to_numpy(),
      'order': first['order'].to_numpy(),
      'order is': first['found'].to_numpy(),
      'k': first['groups'].to_numpy(),
      'steps': first['steps'].to_numpy(),
      'evaluations': first['evaluations'].to_numpy(),
      'bound, nats/dim': [f'{value:.4f} ± {error:.2g}' for value, error in bound],
      metric: summary['text'].to_numpy(),
      'seconds an image': first['seconds'].to_numpy(),
      'cuts by loss': first['proposed_cuts'].to_numpy(),
    }
  )
  return table, [recommendation(summary, first, metric, rows), spread_caption(rows)]


def labels(rows: pd.DataFrame) -> pd.Series:
  """The names of the strategies, with their models' if there are several."""
  if rows['model'].nunique() == 1:
    return rows['strategy']
  return rows['model'] + '/' + rows['strategy']


def recommendation(
  summary: pd.DataFrame, first: pd.DataFrame, metric: str, rows: pd.DataFrame
) -> str:
  """What to take, and how sure that is."""
  best, repeats = summary.index[0], rows['seeds'].nunique()
  errors = summary['deviation'] / math.sqrt(repeats)
  lead = summary['mean'] - summary['mean'].iloc[0]
  alike = [
    name
    for name in summary.index[1:]
    if lead[name] <= ERRORS * math.hypot(errors[name], errors[best])
  ]
  bounds = first['bound'].astype(float)
  sentences = [f'Take {best}, order {first["order"][best]}: it has the lowest {metric}.']
  if alike:
    fastest = first['seconds'].astype(float)[[best, *alike]].idxmin()
    sentences.append(
      f'{", ".join(alike)} cannot be told from it ({ERRORS:g} standard errors of {repeats} sets '
      f'of seeds); of these {fastest} is the fastest.'
    )
  elif len(summary) > 1:
    sentences.append(f'All others are more than {ERRORS:g} standard errors of the seeds above it.')
  if len(summary) > 1:
    sentences.append(
      f'By the bound on -log p(x) {bounds.idxmin()} is the best. Each strategy was trained once '
      'or in one model: how much of a difference is the luck of training, this does not tell.'
    )
  return ' '.join(sentences)


def draw(file: pathlib.Path, rows: pd.DataFrame):
  """A bar for each strategy."""
  summary = statistics(rows.assign(label=labels(rows)), 'label')
  bars = list(summary.index), list(summary['mean']), list(summary['deviation'])
  figures.plot_bars(file, *bars, ylabel=rows['metric'].iloc[0])


if __name__ == '__main__':
  command.start(run, __doc__)
