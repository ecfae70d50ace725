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

from configs import cifar10_strategies
from experiments.lib import command, report, study
from gdm_jax import figures

PAPER = {'bottom_top': 12.63, 'right_left': 13.14, 'cdm': 14.03, 'cdm_inv': 13.70}


def run(config, workdir: pathlib.Path, *, models: str = '', repeats: int = 3):
  """Measures, draws and reports. Raises ConfigError where a workdir holds no model."""
  found = study.Study('grouping_strategies', workdir)
  rows: dict[str, list] = {}
  for model in found.models(config, study.workdirs(models, workdir)):
    for name in model.system.strategies:
      rows.setdefault(label(model, name), []).extend(found.measure(model, repeats, strategy=name))

  every = [row for some in rows.values() for row in some]
  metric = every[0]['metric']
  statistics = {name: study.mean_and_deviation(some) for name, some in rows.items()}
  table = [
    {
      'strategy': name,
      metric: f'{mean:.4g} ± {deviation:.2g}',
      'of': ' '.join(f'{float(row["distance"]):.4g}' for row in rows[name]),
      'FID10K, paper (CIFAR-10)': PAPER.get(name, ''),
    }
    for name, (mean, deviation) in statistics.items()
  ]
  picture = found.folder / 'figure.png'
  means, deviations = zip(*statistics.values(), strict=True)
  figures.plot_bars(picture, list(rows), means, deviations, ylabel=metric)
  ranking = sorted(statistics, key=lambda name: statistics[name][0])
  said = [f'From low to high {metric}: {", ".join(ranking)}.', study.spread_caption(every)]
  if set(ranking) == set(PAPER):
    said.append(f'In the paper: {", ".join(sorted(PAPER, key=PAPER.get))}.')
  report.publish(found.folder, __doc__, table, said, [picture], every, model.config)


def label(model: study.Model, name: str) -> str:
  """The name in Table 1 of what a model was trained on; else the strategy's, or the model's."""
  mine = model.config.strategies[name].to_dict()
  for known, strategy in cifar10_strategies.get_config().strategies.items():
    if strategy.to_dict() == mine:
      return known
  return name if len(model.system.strategies) > 1 else model.name


if __name__ == '__main__':
  command.start(run, __doc__)
