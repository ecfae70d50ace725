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

from experiments.lib import command, report, study
from gdm_jax import figures, solvers
from gdm_jax.config import blaming
from gdm_jax.runtime.errors import ConfigError


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
  try:
    each = sorted({int(budget) for budget in budgets.split(',')})
  except ValueError:
    raise ConfigError(f'--budgets={budgets}: must be numbers such as 8,16,32') from None
  with blaming('sampling.solver', config.sampling.solver):
    solver = solvers.get_solver(config.sampling.solver)
  rows: dict[str, dict[int, list]] = {}
  for model in found.models(config, study.workdirs(models, workdir)):
    counts = [strategy.num_groups for strategy in model.system.strategies.values()]
    for name, strategy in model.system.strategies.items():
      k = strategy.num_groups
      label = f'k = {k}' if counts.count(k) == 1 else f'{name}, k = {k}'
      for budget in each:
        steps = solver.steps(budget)
        if steps >= k:
          cell = found.measure(model, repeats, strategy=name, steps=(steps,))
          rows.setdefault(label, {}).setdefault(budget, []).extend(cell)

  every = [row for line in rows.values() for some in line.values() for row in some]
  if not every:
    raise ConfigError(f'--budgets={budgets}: too few for any of the strategies')
  metric = every[0]['metric']
  statistics = {
    label: {budget: study.mean_and_deviation(some) for budget, some in line.items()}
    for label, line in rows.items()
  }
  picture = found.folder / 'figure.png'
  figures.plot_lines(
    picture,
    {label: [(n, *values) for n, values in line.items()] for label, line in statistics.items()},
    each,
    xlabel='evaluations of the network',
    ylabel=metric,
    xscale='log',
    yscale='log',
  )
  cells = {
    label: {n: f'{mean:.4g} ± {deviation:.2g}' for n, (mean, deviation) in line.items()}
    for label, line in statistics.items()
  }
  table = report.by_budget(metric, cells, each)
  said = [best_at(statistics, n) for n in each if any(n in line for line in statistics.values())]
  said.append(study.spread_caption(every))
  report.publish(found.folder, __doc__, table, said, [picture], every, model.config)


def best_at(statistics, budget: int) -> str:
  """Which number of groups is best with a budget, as a sentence."""
  means = {label: line[budget][0] for label, line in statistics.items() if budget in line}
  return (
    f'With {budget} evaluations, from best to worst: {", ".join(sorted(means, key=means.get))}.'
  )


if __name__ == '__main__':
  command.start(run, __doc__)
