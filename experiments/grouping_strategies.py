"""Table 1: how the grouping strategy, and its order, changes the quality of samples.

  python -m gdm_jax.main --config=configs/digits_groupings.py
  python -m experiments.grouping_strategies --config=configs/digits_groupings.py

Every strategy of a model, or of several (--models=runs/cifar10_cdm,runs/cifar10_bottom_top), is
evaluated as config.sampling and config.evaluation say, from --repeats sets of seeds. The deviations
of several models of the same strategies, trained from several seeds, are over the models, so that
the table tells the strategies from the luck of a training run. The paper: FID10K of k = 2 on
CIFAR-10 with Euler and 128 steps, Bottom-to-Top 12.63, Right-to-Left 13.14, CDM 14.03, CDM-inv
13.70. At that scale:

  python -m experiments.grouping_strategies --config=configs/cifar10_strategies.py \\
    --config.evaluation.weights=inception.npz --repeats=1

40,000 samples of 5.1 TFLOP each (0.2 EFLOP: 15 minutes of a device that sustains 240 TFLOP/s).
"""

import pathlib
from collections.abc import Mapping

from configs import cifar10_strategies
from experiments.lib import command, study
from experiments.paper import TABLE_1
from gdm_jax import figures


def run(config, workdir: pathlib.Path, *, models: str = '', repeats: int = 3):
  """Evaluates every strategy of every model. Raises ConfigError if a workdir holds no model."""
  this = study.Study('grouping_strategies', workdir)
  rows: dict[str, list[study.Row]] = {}
  for model in this.models(config, study.workdirs(models, workdir)):
    for name in model.system.strategies:
      rows.setdefault(label(model, name), []).extend(this.measure(model, repeats, strategy=name))
  picture = this.folder / 'figure.png'
  draw(picture, rows)
  table, findings = summarise(rows)
  this.publish(__doc__, table, findings, [picture], flat(rows), model.config)


def summarise(rows: Mapping[str, list[study.Row]]) -> tuple[list[dict], list[str]]:
  """The table and the findings of rows by strategy."""
  metric = flat(rows)[0]['metric']
  statistics = {name: study.mean_and_deviation(group) for name, group in rows.items()}
  table = [
    {
      'strategy': name,
      metric: f'{mean:.4g} ± {deviation:.2g}',
      'of': ' '.join(f'{float(row["distance"]):.4g}' for row in rows[name]),
      'FID10K, paper (CIFAR-10)': TABLE_1.get(name, ''),
    }
    for name, (mean, deviation) in statistics.items()
  ]
  ranking = sorted(statistics, key=lambda name: statistics[name][0])
  findings = [
    f'From low to high {metric}: {", ".join(ranking)}.',
    study.spread_caption(flat(rows)),
  ]
  if set(ranking) == set(TABLE_1):
    findings.append(f'In the paper: {", ".join(sorted(TABLE_1, key=TABLE_1.get))}.')
  return table, findings


def flat(rows: Mapping[str, list[study.Row]]) -> list[study.Row]:
  """All rows."""
  return [row for group in rows.values() for row in group]


def draw(file: pathlib.Path, rows: Mapping[str, list[study.Row]]):
  """A bar for each strategy."""
  means, deviations = zip(*map(study.mean_and_deviation, rows.values()), strict=True)
  figures.plot_bars(file, list(rows), means, deviations, ylabel=flat(rows)[0]['metric'])


def label(model: study.Model, name: str) -> str:
  """The name in Table 1 of what a model was trained on; otherwise the strategy's or the model's."""
  trained = model.config.strategies[name].to_dict()
  for known, strategy in cifar10_strategies.get_config().strategies.items():
    if strategy.to_dict() == trained:
      return known
  return name if len(model.system.strategies) > 1 else model.name


if __name__ == '__main__':
  command.start(run, __doc__)
