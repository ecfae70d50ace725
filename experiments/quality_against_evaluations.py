"""How few evaluations will do: quality against evaluations of the network, solver by solver.

  python -m gdm_jax.main --config=configs/digits.py
  python -m experiments.quality_against_evaluations --config=configs/digits.py \\
    --config.evaluation.features=pixels --config.evaluation.seeds=0-999

Every solver and budget, from the same seeds, in a few orders of the groups where the model knows
all of them. 1,000 digits took 48 minutes of two cores busy with other work.
"""

import pathlib

import numpy as np
import tqdm
from matplotlib import pyplot as plt

from experiments.lib import command, report, study
from gdm_jax import build, figures, solvers

BUDGETS = (8, 16, 32, 64, 128)
SOLVERS = tuple(name for name, solver in solvers.SOLVERS.items() if solver.order)
ORDERS = 3


Rows = dict[str, dict[int, list[study.Row]]]
"""By solver and by evaluations."""


def run(config, workdir: pathlib.Path):
  """Evaluates every solver at every budget. Raises ConfigError if the workdir holds no model."""
  this = study.Study('quality_against_evaluations', workdir)
  (model,) = this.models(config, [workdir])
  measured_orders = orders(model.config, model.system)
  rows: Rows = {name: {} for name in SOLVERS}
  for name, budget in tqdm.tqdm([(s, b) for s in SOLVERS for b in BUDGETS], disable=None):
    steps = solvers.get_solver(name).steps(budget)
    if steps >= len(measured_orders[0]):
      rows[name][budget] = [
        row
        for order in measured_orders
        for row in this.measure(model, 1, order=order, steps=(steps,), solver=name)
      ]
  flat = [row for line in rows.values() for group in line.values() for row in group]
  picture = this.folder / 'figure.png'
  draw(picture, rows, flat[0]['metric'])
  table, findings = summarise(rows, flat[0]['metric'], measured_orders)
  this.publish(__doc__, table, findings, [picture], flat, model.config)


def summarise(rows: Rows, metric: str, measured_orders) -> tuple[list[dict], list[str]]:
  """The table and the findings."""
  cells = {
    name: {
      n: ' '.join(f'{float(row["distance"]):.3g}' for row in group) for n, group in line.items()
    }
    for name, line in rows.items()
  }
  names = ['-'.join(map(str, order)) for order in measured_orders]
  return report.by_budget(metric, cells, BUDGETS), [f'The orders: {", ".join(names)}.']


def orders(config, system) -> list[tuple[int, ...]]:
  """Orders to measure: the strategy's own or, if it knows all, raster order and two others."""
  strategy = system.strategies[build.sampling_order(config, system.strategies)[0]]
  if strategy.order:
    return [strategy.order]
  rng = np.random.default_rng(0)
  groups = np.arange(strategy.num_groups)
  permutations = [groups, *(rng.permutation(groups) for _ in range(ORDERS - 1))]
  return [tuple(int(g) for g in order) for order in permutations]


def draw(file: pathlib.Path, rows: dict[str, dict[int, list]], metric: str):
  """One line a solver: the mean over orders, and a band from the best to the worst."""
  figure, axes = plt.subplots(figsize=(6.5, 4), dpi=120, layout='constrained')
  for name, line in rows.items():
    values = [[float(row['distance']) for row in group] for group in line.values()]
    if values:
      (drawn,) = axes.plot(list(line), [np.mean(v) for v in values], 'o-', ms=4, label=name)
      low, high = [min(v) for v in values], [max(v) for v in values]
      axes.fill_between(list(line), low, high, color=drawn.get_color(), alpha=0.12, lw=0)
  axes.set(xscale='log', yscale='log', xlabel='evaluations of the network', ylabel=metric)
  axes.set_xticks(BUDGETS, [str(b) for b in BUDGETS])
  axes.minorticks_off()
  axes.legend()
  axes.grid(alpha=0.3, which='both')
  figures.finish(figure, file)


if __name__ == '__main__':
  command.start(run, __doc__)
