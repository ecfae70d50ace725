"""Table 1: how the grouping strategy, and its order, changes the quality of samples.

  python -m gdm_jax.main --config=configs/digits_groupings.py
  python -m experiments.grouping_strategies --config=configs/digits_groupings.py

Every strategy of a model, or of several (--models=runs/cifar10_cdm,runs/cifar10_bottom_top), is
evaluated as config.sampling and config.evaluation say, from --repeats sets of seeds. Models of one
recipe and several training seeds are averaged by strategy, so that the table tells the strategies
from the luck of a training run. The paper: FID10K of k = 2 on CIFAR-10 with Euler and 128 steps,
Bottom-to-Top 12.63, Right-to-Left 13.14, CDM 14.03, CDM-inv 13.70. At that scale:

  python -m experiments.grouping_strategies --config=configs/cifar10_strategies.py \\
    --config.evaluation.weights=inception.npz --repeats=1

40,000 samples of 5.1 TFLOP each (0.2 EFLOP: 15 minutes of a device that sustains 240 TFLOP/s).
"""

import pathlib

from experiments import command, report, study
from gdm_jax import figures

PAPER = {'bottom_top': 12.63, 'right_left': 13.14, 'cdm': 14.03, 'cdm_inv': 13.70}


def run(config, workdir: pathlib.Path, *, models: str = '', repeats: int = 3):
  """Measures, draws and reports. Raises ConfigError where a workdir holds no model."""
  found = study.Study('grouping_strategies', workdir)
  rows: dict[str, list] = {}
  for model in found.models(config, study.paths(models, workdir)):
    for name in model.system.strategies:
      label = name if len(model.system.strategies) > 1 else model.name
      rows.setdefault(label, []).extend(found.measure(model, repeats, strategy=name))

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
  figures.plot_bars(
    picture,
    list(rows),
    [mean for mean, _ in statistics.values()],
    [deviation for _, deviation in statistics.values()],
    ylabel=metric,
  )
  best = min(statistics, key=lambda name: statistics[name][0])
  said = [
    f'The lowest {metric} is that of {best}. Means and standard deviations over '
    f'{len({row["model"] for row in every})} models and {repeats} sets of seeds.'
  ]
  report.write(found.folder / 'report.html', __doc__, table, said, [picture], every)
  print(report.text(table), *said, f'see {found.folder}/report.html', sep='\n')


if __name__ == '__main__':
  command.start(run, __doc__)
