"""Fig. 11: quality against evaluations of the network, for every number of groups k.

  python -m gdm_jax.main --config=configs/digits_columns.py
  python -m experiments.group_count --config=configs/digits_columns.py \\
    --config.evaluation.seeds=0-999

Evaluates every strategy of a model trained on all k (or of several models, --models=runs/a,runs/b)
with every budget of --budgets from --repeats sets of seeds; k groups need k steps at least, more if
their intervals overlap (configs/digits_overlap.py). The paper, k = 1 to 29 columns from right to
left on CIFAR-10, FID of 5,000 samples: more groups need more evaluations for the same quality. At
that scale:

  python -m experiments.group_count --config=configs/cifar10_columns.py \\
    --config.evaluation.weights=inception.npz --config.evaluation.seeds=0-4999 --repeats=1

10 million evaluations of 40 GFLOP (0.4 EFLOP: half an hour at 240 TFLOP/s).
"""

import pathlib
from collections.abc import Sequence

import pandas as pd

from experiments.lib import command, report
from experiments.lib.study import Study, budgets_of, spread_caption, statistics, workdirs
from gdm_jax import build, figures
from gdm_jax.runtime.errors import ConfigError

BUDGETS = '8,16,32,64,128'


def run(
  config,
  workdir: pathlib.Path,
  *,
  models: str = '',
  repeats: int = 3,
  budgets: str = BUDGETS,
):
  """Evaluates every strategy at every budget. Raises ConfigError if a workdir holds no model."""
  study = Study('group_count', workdir, judge=config.evaluation.features)
  evaluations, solver = parse(budgets), build.solver(config)
  rows = []
  for model in study.models(config, workdirs(models, workdir)):
    for name, strategy in model.system.strategies.items():
      for steps in map(solver.steps, evaluations):
        if steps >= strategy.fewest_steps:
          rows += study.measure(model, repeats, strategy=name, steps=(steps,))
  if not rows:
    raise ConfigError(f'--budgets={budgets}: too few for any of the strategies')
  rows = pd.DataFrame(rows).drop_duplicates()
  picture = study.folder / 'figure.png'
  draw(picture, rows, evaluations)
  study.publish(__doc__, *summarise(rows, evaluations), [picture], rows, model.config)


def parse(budgets: str) -> list[int]:
  """The numbers of --budgets, ascending. Raises ConfigError."""
  return sorted(set(command.numbers('budgets', budgets)))


def summarise(rows: pd.DataFrame, budgets: Sequence[int]) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  summary = statistics_of(rows, budgets)
  corner = f'{rows["metric"].iloc[0]}; kernel distance'
  table = report.pivot(summary['text'] + '; ' + summary['kernel'], corner, budgets, ' evaluations')
  means = summary['mean'].unstack()
  findings = [
    f'With {budget} evaluations, from best to worst: '
    f'{", ".join(means[budget].dropna().sort_values(kind="stable").index)}.'
    for budget in budgets
    if budget in means
  ]
  return table, [*findings, spread_caption(rows)]


def statistics_of(rows: pd.DataFrame, budgets: Sequence[int]) -> pd.DataFrame:
  """`study.statistics` by number of groups and budget.

  Strategies of the same number of groups are told apart by their names.
  """
  counts = rows['order'].str.count('-') + 1
  strategies = rows.assign(k=counts).groupby(['model', 'k'])['strategy'].transform('nunique')
  labels = 'k = ' + counts.astype(str)
  labels = labels.where(strategies == 1, rows['strategy'] + ', ' + labels)
  return statistics(budgets_of(rows.assign(label=labels), budgets), ['label', 'budget'])


def draw(file: pathlib.Path, rows: pd.DataFrame, budgets: Sequence[int]):
  """A line for each strategy."""
  summary = statistics_of(rows, budgets).reset_index()
  figures.plot_lines(
    file,
    report.points_by(summary, 'label', ['budget', 'mean', 'deviation']),
    budgets,
    xlabel='evaluations of the network',
    ylabel=rows['metric'].iloc[0],
    xscale='log',
    yscale='log',
  )


if __name__ == '__main__':
  command.start(run, __doc__)
