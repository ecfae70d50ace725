"""How few evaluations will do: quality of digits against evaluations of the network, per solver.

  python -m gdm_jax.main --config=configs/digits.py
  python -m experiments.quality_against_evaluations --config=configs/digits.py \\
    --config.sampling.seeds=0-999

For every solver, budget and order of the groups (a few, where the model knows all), the Frechet
distance on raw pixels, "FD (pixels)", of the same seeds' images to scikit-learn's digits. It is no
FID. 1,000 images took 48 minutes of two cores busy with other work. Adds to
workdir/quality/results.csv cell by cell, skips what is there, and draws figure.png.
"""

import pathlib

import numpy as np
import tqdm
from matplotlib import pyplot as plt

from experiments import command
from experiments.cells import Cells
from experiments.digits_distance import pixel_distance
from gdm_jax import build, figures, generate, sharding, solvers
from gdm_jax.config import seeds_of
from gdm_jax.training.checkpoint import trained

BUDGETS = (8, 16, 32, 64, 128)
SOLVERS = tuple(name for name, solver in solvers.SOLVERS.items() if solver.order)
ORDERS = 3
KEYS = ('solver', 'evaluations', 'order', 'seeds', 'checkpoint')


def run(config, workdir: pathlib.Path):
  """Measures, and draws. Raises ConfigError where the workdir holds no model."""
  system, mesh = build.system(config), sharding.mesh()
  params, step = trained(config, workdir, system, mesh)
  seeds = seeds_of(config)
  cells = Cells(workdir / 'quality' / 'results.csv', KEYS, ('steps', 'fd_pixels'))
  todo = [(s, b, o) for s in SOLVERS for b in BUDGETS for o in orders(config, system)]
  current = None
  for name, budget, order in tqdm.tqdm(todo, unit='cell', disable=None):
    steps = steps_of(name, budget)
    found = name, budget, '-'.join(map(str, order)), config.sampling.seeds, step
    key = dict(zip(KEYS, found, strict=True))
    if steps < len(order) or key in cells:
      continue
    if name != current:  # the cells of a solver follow one another, and share its programs
      generator, current = generate.Generator(system, config.data.shape, name, mesh), name
    config.sampling.update(order=order, steps=(steps,), solver=name)
    table = build.generation(config, system.strategies)
    parts = np.array_split(seeds, -(-len(seeds) // config.sampling.batch))
    x = np.concatenate(
      [generator.images(params, table, some, labels=build.labels(config, some)) for some in parts]
    )
    cells.add({**key, 'steps': steps, 'fd_pixels': f'{pixel_distance(figures.to_uint8(x)):.4f}'})
    same = (config.sampling.seeds, str(step))
    mine = [row for row in cells.rows if (row['seeds'], row['checkpoint']) == same]
    draw(mine, workdir / 'quality' / 'figure.png')
  print(f'see {workdir}/quality/results.csv and figure.png')


def steps_of(solver: str, budget: int) -> int:
  """How many steps a solver can take with that many evaluations."""
  found = solvers.SOLVERS[solver]
  return (budget - found.reversible) // found.evaluations


def orders(config, system) -> list[tuple[int, ...]]:
  """Orders to measure: the strategy's own, or where it knows all, raster order and two others."""
  strategy = system.strategies[config.sampling.strategy or next(iter(system.strategies))]
  if strategy.order:
    return [strategy.order]
  rng = np.random.default_rng(0)
  groups = np.arange(strategy.num_groups)
  every = [groups, *(rng.permutation(groups) for _ in range(ORDERS - 1))]
  return [tuple(int(g) for g in order) for order in every]


def draw(rows: list[dict[str, str]], file: pathlib.Path):
  """One line a solver: the mean over orders, and a band from the best to the worst."""
  figure, axes = plt.subplots(figsize=(6.5, 4), dpi=120, layout='constrained')
  for name in SOLVERS:
    mine = [row for row in rows if row['solver'] == name]
    budgets = sorted({int(row['evaluations']) for row in mine})
    values = [
      [float(row['fd_pixels']) for row in mine if int(row['evaluations']) == budget]
      for budget in budgets
    ]
    if budgets:
      (line,) = axes.plot(budgets, [np.mean(v) for v in values], 'o-', ms=4, label=name)
      low, high = [min(v) for v in values], [max(v) for v in values]
      axes.fill_between(budgets, low, high, color=line.get_color(), alpha=0.12, lw=0)
  axes.set(xscale='log', yscale='log', xlabel='evaluations of the network', ylabel='FD (pixels)')
  axes.set_xticks(BUDGETS, [str(b) for b in BUDGETS])
  axes.minorticks_off()
  axes.legend()
  axes.grid(alpha=0.3, which='both')
  figure.savefig(file)
  plt.close(figure)


if __name__ == '__main__':
  command.start(run, __doc__)
