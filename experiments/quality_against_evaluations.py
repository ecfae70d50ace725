"""How many evaluations are enough: quality against evaluations of the network, solver by solver.

  python -m gdm_jax.main --config=configs/digits.py
  python -m experiments.quality_against_evaluations --config=configs/digits.py \\
    --config.evaluation.features=pixels --config.evaluation.seeds=0-999

Evaluates every solver with every budget, from the same seeds, in a few orders of the groups if the
model knows all of them. 1,000 digits took 48 minutes of two cores busy with other work.
"""

import pathlib

import numpy as np
import pandas as pd
import tqdm
from matplotlib import pyplot as plt

from experiments.lib import command, report
from experiments.lib.study import Study, budgets_of
from gdm_jax import build, figures, solvers
from gdm_jax.runtime.errors import ConfigError

BUDGETS = (8, 16, 32, 64, 128)
SOLVERS = tuple(name for name, solver in solvers.SOLVERS.items() if solver.order)
ORDERS = 3


def run(config, workdir: pathlib.Path):
  """Evaluates every solver at every budget. Raises ConfigError if the workdir holds no model."""
  study = Study('quality_against_evaluations', workdir)
  (model,) = study.models(config, [workdir])
  measured_orders, rows = orders(model.config, model.system), []
  for name, budget in tqdm.tqdm([(s, b) for s in SOLVERS for b in BUDGETS], disable=None):
    steps = solvers.get_solver(name).steps(budget)
    if steps >= len(measured_orders[0]):
      for order in measured_orders:
        rows += study.measure(model, 1, order=order, steps=(steps,), solver=name)
  if not rows:
    raise ConfigError(f'{max(BUDGETS)} evaluations are too few for the groups')
  rows = pd.DataFrame(rows).drop_duplicates()
  picture = study.folder / 'figure.png'
  draw(picture, rows)
  study.publish(__doc__, *summarise(rows), [picture], rows, model.config)


def orders(config, system) -> list[tuple[int, ...]]:
  """Orders to measure: the strategy's own or, if it knows all, raster order and two others."""
  strategy = system.strategies[build.sampling_order(config, system.strategies)[0]]
  if strategy.order:
    return [strategy.order]
  rng = np.random.default_rng(0)
  groups = np.arange(strategy.num_groups)
  permutations = [groups, *(rng.permutation(groups) for _ in range(ORDERS - 1))]
  return [tuple(int(g) for g in order) for order in permutations]


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table, a distance for each order in a cell, and the findings."""
  cells = distances(rows).map(lambda values: ' '.join(f'{value:.3g}' for value in values))
  table = report.pivot(cells, rows['metric'].iloc[0], BUDGETS, ' evaluations')
  return table, [f'The orders: {", ".join(rows["order"].unique())}.']


def distances(rows: pd.DataFrame) -> pd.Series:
  """The lists of distances of each solver and budget."""
  measured = budgets_of(rows, BUDGETS).astype({'distance': float})
  return measured.groupby(['solver', 'budget'], sort=False)['distance'].agg(list)


def draw(file: pathlib.Path, rows: pd.DataFrame):
  """One line a solver: the mean over orders, and a band from the best to the worst."""
  figure, axes = plt.subplots(figsize=(6.5, 4), dpi=120, layout='constrained')
  for name, line in distances(rows).groupby('solver', sort=False):
    budgets, values = line.index.get_level_values('budget'), np.stack(line)
    (drawn,) = axes.plot(budgets, values.mean(1), 'o-', ms=4, label=name)
    low, high = values.min(1), values.max(1)
    axes.fill_between(budgets, low, high, color=drawn.get_color(), alpha=0.12, lw=0)
  axes.set(
    xscale='log',
    yscale='log',
    xlabel='evaluations of the network',
    ylabel=rows['metric'].iloc[0],
  )
  axes.set_xticks(BUDGETS, [str(b) for b in BUDGETS])
  axes.minorticks_off()
  axes.legend()
  axes.grid(alpha=0.3, which='both')
  figures.finish(figure, file)


if __name__ == '__main__':
  command.start(run, __doc__)
