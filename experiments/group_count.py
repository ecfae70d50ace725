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
from collections.abc import Mapping, Sequence

from experiments.lib import command, report, study
from gdm_jax import build, figures
from gdm_jax.runtime.errors import ConfigError

Rows = Mapping[str, Mapping[int, list[study.Row]]]
"""By strategy and by evaluations."""


def run(
  config,
  workdir: pathlib.Path,
  *,
  models: str = '',
  repeats: int = 3,
  budgets: str = '8,16,32,64,128',
):
  """Evaluates every strategy at every budget. Raises ConfigError if a workdir holds no model."""
  this = study.Study('group_count', workdir)
  evaluations, solver = parse(budgets), build.solver(config)
  rows: dict[str, dict[int, list]] = {}
  for model in this.models(config, study.workdirs(models, workdir)):
    counts = [strategy.num_groups for strategy in model.system.strategies.values()]
    for name, strategy in model.system.strategies.items():
      k = strategy.num_groups
      label = f'k = {k}' if counts.count(k) == 1 else f'{name}, k = {k}'
      for budget in evaluations:
        if (steps := solver.steps(budget)) >= k:
          measured = this.measure(model, repeats, strategy=name, steps=(steps,))
          rows.setdefault(label, {}).setdefault(budget, []).extend(measured)
  if not rows:
    raise ConfigError(f'--budgets={budgets}: too few for any of the strategies')
  picture = this.folder / 'figure.png'
  draw(picture, rows, evaluations)
  table, findings = summarise(rows, evaluations)
  this.publish(__doc__, table, findings, [picture], flat(rows), model.config)


def parse(budgets: str) -> list[int]:
  """The numbers of --budgets, ascending. Raises ConfigError."""
  try:
    return sorted({int(budget) for budget in budgets.split(',')})
  except ValueError:
    raise ConfigError(f'--budgets={budgets}: must be numbers such as 8,16,32') from None


def summarise(rows: Rows, budgets: Sequence[int]) -> tuple[list[dict], list[str]]:
  """The table and the findings."""
  statistics = statistics_of(rows)
  cells = {
    label: {n: f'{mean:.4g} ± {deviation:.2g}' for n, (mean, deviation) in line.items()}
    for label, line in statistics.items()
  }
  table = report.by_budget(flat(rows)[0]['metric'], cells, budgets)
  findings = [
    best_at(statistics, n) for n in budgets if any(n in line for line in statistics.values())
  ]
  return table, [*findings, study.spread_caption(flat(rows))]


def flat(rows: Rows) -> list[study.Row]:
  """All rows."""
  return [row for line in rows.values() for group in line.values() for row in group]


def statistics_of(rows: Rows) -> dict[str, dict[int, tuple[float, float]]]:
  """Mean and deviation of each strategy and budget."""
  return {
    label: {budget: study.mean_and_deviation(group) for budget, group in line.items()}
    for label, line in rows.items()
  }


def draw(file: pathlib.Path, rows: Rows, budgets: Sequence[int]):
  """A line for each strategy."""
  lines = {
    label: [(n, *values) for n, values in line.items()]
    for label, line in statistics_of(rows).items()
  }
  figures.plot_lines(
    file,
    lines,
    budgets,
    xlabel='evaluations of the network',
    ylabel=flat(rows)[0]['metric'],
    xscale='log',
    yscale='log',
  )


def best_at(statistics, budget: int) -> str:
  """Which number of groups is best with a budget, as a sentence."""
  means = {label: line[budget][0] for label, line in statistics.items() if budget in line}
  return (
    f'With {budget} evaluations, from best to worst: {", ".join(sorted(means, key=means.get))}.'
  )


if __name__ == '__main__':
  command.start(run, __doc__)
