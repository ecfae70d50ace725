"""Fig. 11: quality against evaluations of the network, for every number of groups k.

  python -m gdm_jax.main --config=configs/digits_columns.py
  python -m experiments.group_count --config=configs/digits_columns.py \\
    --config.evaluation.seeds=0-999

Every strategy of a model trained on all k (or of several models, --models=runs/a,runs/b) with
every budget of --budgets from --repeats sets of seeds; k groups need k steps at least. The paper,
k = 1 to 29 columns from right to left on CIFAR-10, FID of 5,000 samples: more groups need more
evaluations for the same quality. At that scale:

  python -m experiments.group_count --config=configs/cifar10_columns.py \\
    --config.evaluation.weights=inception.npz --config.evaluation.seeds=0-4999 --repeats=1

10 million evaluations of 40 GFLOP (0.4 EFLOP: half an hour at 240 TFLOP/s).
"""

import pathlib

from experiments import command, report, study
from gdm_jax import figures, solvers


def run(
  config,
  workdir: pathlib.Path,
  *,
  models: str = '',
  repeats: int = 3,
  budgets: str = '8,16,32,64,128',
):
  """Measures, draws and reports. Raises ConfigError where a workdir holds no model."""
  found = study.Study('group_count', workdir)
  each = [int(budget) for budget in budgets.split(',')]
  solver = solvers.find(config.sampling.solver)
  rows: dict[str, dict[int, list]] = {}
  for model in found.models(config, study.paths(models, workdir)):
    for name, strategy in model.system.strategies.items():
      label = f'k = {strategy.num_groups}'
      for budget in each:
        steps = solver.steps(budget)
        if steps >= strategy.num_groups:
          cell = found.measure(model, repeats, strategy=name, steps=(steps,))
          rows.setdefault(label, {}).setdefault(budget, []).extend(cell)

  every = [row for line in rows.values() for some in line.values() for row in some]
  metric = every[0]['metric']
  lines = {
    label: [(budget, *study.mean_and_deviation(some)) for budget, some in line.items()]
    for label, line in rows.items()
  }
  picture = found.folder / 'figure.png'
  figures.plot_lines(
    picture,
    lines,
    each,
    xlabel='evaluations of the network',
    ylabel=metric,
    xscale='log',
    yscale='log',
  )
  table = [
    {
      metric: label,
      **{
        f'{budget} evaluations': next(
          (f'{mean:.4g} ± {deviation:.2g}' for n, mean, deviation in line if n == budget), ''
        )
        for budget in each
      },
    }
    for label, line in lines.items()
  ]
  said = [f'Means and standard deviations over {repeats} sets of seeds.']
  report.write(found.folder / 'report.html', __doc__, table, said, [picture], every)
  print(report.text(table), f'see {found.folder}/report.html', sep='\n')


if __name__ == '__main__':
  command.start(run, __doc__)
