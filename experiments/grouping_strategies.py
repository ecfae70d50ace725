"""Table 1: how the grouping strategy, and its order, changes the quality of samples.

  python -m gdm_jax.main --config=configs/digits_groupings.py
  python -m experiments.grouping_strategies --config=configs/digits_groupings.py

Evaluates every strategy of a model, or of several (--models=runs/cifar10_cdm,runs/cifar10_cdm_inv),
as config.sampling and config.evaluation say, from --repeats sets of seeds. For several models of
the same strategies, trained from several seeds, the deviations are over the models, so that the
table separates the strategies from the luck of a training run. The paper: FID10K of k = 2 on
CIFAR-10 with Euler and 128 steps, Bottom-to-Top 12.63, Right-to-Left 13.14, CDM 14.03, CDM-inv
13.70. At that scale:

  python -m experiments.grouping_strategies --config=configs/cifar10_strategies.py \\
    --config.evaluation.weights=inception.npz --repeats=1

40,000 samples of 5.1 TFLOP each (0.2 EFLOP: 15 minutes of a device that sustains 240 TFLOP/s).
"""

import pathlib
from collections.abc import Sequence

import pandas as pd

from configs import cifar10_strategies
from experiments.lib import command
from experiments.lib.study import (
  Model,
  Study,
  distances_as_text,
  spread_caption,
  statistics,
  workdirs,
)
from experiments.paper import TABLE_1
from gdm_jax import figures


def run(config, workdir: pathlib.Path, *, models: str = '', repeats: int = 3):
  """Evaluates every strategy of every model. Raises ConfigError if a workdir holds no model."""
  study = Study('grouping_strategies', workdir, judge=config.evaluation.features)
  rows, labels = [], []
  for model in study.models(config, workdirs(models, workdir)):
    for strategy in model.system.strategies:
      rows += study.measure(model, repeats, strategy=strategy)
      labels += [label(model, strategy)] * repeats
  rows = pd.DataFrame(rows)
  picture = study.folder / 'figure.png'
  draw(picture, rows, labels)
  study.publish(__doc__, *summarise(rows, labels), [picture], rows, model.config)


def label(model: Model, strategy: str) -> str:
  """The name in Table 1 of a strategy. If it has none: its own, or the model's if it is alone."""
  trained = model.config.strategies[strategy].to_dict()
  for name, known in cifar10_strategies.get_config().strategies.items():
    if known.to_dict() == trained:
      return name
  return strategy if len(model.system.strategies) > 1 else model.name


def summarise(
  rows: pd.DataFrame, labels: Sequence[str] | None = None
) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings; labels: of the rows, by default the names of their strategies."""
  groups = rows.assign(label=rows['strategy'] if labels is None else labels)
  metric, summary = rows['metric'].iloc[0], statistics(groups, 'label')
  texts = groups.groupby('label', sort=False)[['distance']].apply(distances_as_text)
  table = pd.DataFrame(
    {
      'strategy': summary.index,
      metric: summary['text'].to_numpy(),
      'kernel distance': summary['kernel'].to_numpy(),
      'of': texts.to_numpy(),
      'FID10K, paper (CIFAR-10)': [str(TABLE_1.get(name, '')) for name in summary.index],
    }
  )
  ranking = summary.sort_values('mean', kind='stable').index
  findings = [f'From low to high {metric}: {", ".join(ranking)}.', spread_caption(rows)]
  if set(ranking) == set(TABLE_1):
    findings.append(f'In the paper: {", ".join(sorted(TABLE_1, key=TABLE_1.get))}.')
  return table, findings


def draw(file: pathlib.Path, rows: pd.DataFrame, labels: Sequence[str]):
  """A bar for each strategy."""
  summary, metric = statistics(rows.assign(label=labels), 'label'), rows['metric'].iloc[0]
  figures.plot_bars(
    file, list(summary.index), list(summary['mean']), list(summary['deviation']), ylabel=metric
  )


if __name__ == '__main__':
  command.start(run, __doc__)
