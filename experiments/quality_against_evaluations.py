"""How many evaluations are enough: quality against evaluations of the network, solver by solver.

  python -m gdm_jax.main --config=configs/digits.py
  python -m experiments.quality_against_evaluations --config=configs/digits.py \\
    --config.evaluation.seeds=0-999

Walks every solver with every budget, along even rows and along rows that are denser towards data
(`sampling.rho`), in a few orders of the groups if the model knows all of them, and measures

* the path error: how far the images are from those that the adaptive solver makes of the same
  latents, their root mean square difference (data lie in [-1, 1]), over --latents images, and of
  single images the median, which the few that turn into others do not move;
* the distances of --mode=evaluate, in the first --orders of these orders; 0 measures none.

--solvers=euler,midpoint and --rhos=1,1.5 measure some alone. Rows are added to results.csv one by
one, and a rerun measures those that are missing.
"""

import functools
import itertools
import math
import pathlib
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import tqdm
from matplotlib import pyplot as plt

from experiments.lib import command, report
from experiments.lib.study import COLUMNS, Model, Study, budgets_of
from gdm_jax import build, figures, sampling, solvers
from gdm_jax.config import blaming, is_guided, solver_names
from gdm_jax.evaluation import evaluator
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.solvers import get_solver

BUDGETS = (8, 16, 32, 64, 128)
SOLVERS = tuple(name for name, solver in solvers.SOLVERS.items() if solver.order)
RHOS = (1.0, 1.5)
ORDERS = 3
TOLERANCE = 1e-4  # of the adaptive solver
VALUES = (*evaluator.VALUES, 'median')
PATH = 'path error'
PANELS = {
  'distance': 'path error, root mean square',
  'median': 'path error, median',
}


def run(
  config,
  workdir: pathlib.Path,
  *,
  latents: int = 128,
  orders: Annotated[int, 0] = 1,
  solvers: str = ','.join(SOLVERS),
  rhos: str = ','.join(map(str, RHOS)),
):
  """Measures every cell. Raises ConfigError for a wrong flag, no model, or too small budgets."""
  judge = config.evaluation.features
  study = Study('quality_against_evaluations', workdir, COLUMNS, VALUES, judge)
  (model,) = study.models(config, [workdir])
  with blaming('--solvers', solvers):
    names = solvers.split(',')
    if wrong := [name for name in names if not get_solver(name).order]:
      raise ValueError(f'{wrong[0]!r} chooses its own steps; must be some of {SOLVERS}')
  with blaming('--rhos', rhos):
    scales = [float(rho) for rho in rhos.split(',')]
    if not all(0 < rho < math.inf for rho in scales):
      raise ValueError('must be positive numbers')
  chosen = names, scales
  rows = [*path_errors(study, model, latents, *chosen), *qualities(study, model, orders, *chosen)]
  if not rows:
    raise ConfigError(f'{max(BUDGETS)} evaluations are too few for the groups')
  rows = pd.DataFrame(rows).drop_duplicates()
  picture = study.folder / 'figure.png'
  draw(picture, rows)
  study.publish(__doc__, *summarise(rows), [picture], rows, model.config)


def orders_of(config, system) -> list[tuple[int, ...]]:
  """Orders to measure: the strategy's own or, if it knows all, raster order and two others."""
  strategy = system.strategies[build.sampling_order(config, system.strategies)[0]]
  if strategy.order:
    return [strategy.order]
  rng = np.random.default_rng(0)
  groups = np.arange(strategy.num_groups)
  permutations = [groups, *(rng.permutation(groups) for _ in range(ORDERS - 1))]
  return [tuple(int(g) for g in order) for order in permutations]


def fewest_steps(config, system) -> int:
  """Those of a table of the strategy that is sampled."""
  return system.strategies[build.sampling_order(config, system.strategies)[0]].fewest_steps


def cells(config, system, names, rhos):
  """What is asked of `sampling` in every cell that the model and its groups allow."""
  for order, name, rho, budget in itertools.product(
    orders_of(config, system), names, rhos, BUDGETS
  ):
    steps = get_solver(name).steps(budget)
    if steps >= fewest_steps(config, system) and name in solver_names(config):
      yield {'order': order, 'steps': (steps,), 'rho': rho, 'solver': name}


def path_errors(study: Study, model: Model, latents: int, names, rhos):
  """The rows of path errors."""
  seeds = f'0-{latents - 1}'
  z = sampling.latents(np.arange(latents).astype(np.uint32), tuple(model.config.data.shape))
  labels = jnp.asarray(build.sampling_labels(model.config, np.arange(latents)))
  guidance = build.sampling_guidance(model.config, model.system)
  fewest = fewest_steps(model.config, model.system)

  @functools.partial(jax.jit, static_argnames='solver')
  def walk(params, table, steps, z, solver):
    # As `sampling.sample`, compiled once for all numbers of steps.
    predict = model.system.predictor.bind(params, labels, guidance)
    process = model.system.process

    def one(i, state):
      alpha, after = (jnp.broadcast_to(table[n], (latents, table.shape[1])) for n in (i, i + 1))
      return solver.step(predict, process, state, alpha, after)

    return jax.lax.fori_loop(0, steps, one, sampling.start(predict, process, table, z, solver)).y

  def images(config, solver):
    table = build.sampling_table(config, model.system)
    padded = jnp.pad(table, ((0, max(BUDGETS) + 1 - len(table)), (0, 0)), mode='edge')
    return np.asarray(walk(model.checkpoint.params, padded, len(table) - 1, z, solver))

  @functools.cache
  def exact(order):
    config = model.with_sampling(seeds, order=order, steps=(fewest,), rho=1.0)
    return images(config, solvers.adaptive(TOLERANCE, TOLERANCE))

  rows, measured = [], list(cells(model.config, model.system, names, rhos))
  for cell in tqdm.tqdm(measured, 'path errors', disable=None):
    config = model.with_sampling(seeds, **cell)
    key = evaluator.provenance(config, model.system, model.checkpoint)
    key |= {'model': model.name, **dict.fromkeys(evaluator.AGAINST, ''), 'seeds': seeds}
    key['features'] = 'path'

    def measure(config=config, order=cell['order']):
      solver = build.solver(config)
      gap = images(config, solver) - exact(order)
      each = np.sqrt(np.mean(gap**2, axis=tuple(range(1, gap.ndim))))
      return {
        'metric': PATH,
        'distance': float(np.sqrt(np.mean(each**2))),
        'median': float(np.median(each)),
        'images': latents,
        'evaluations': solver.cost(*config.sampling.steps) * (1 + is_guided(config)),
      }

    rows.append(study.cells.measure(key, measure))
  return rows


def qualities(study: Study, model: Model, orders: int, names, rhos):
  """The rows of distances."""
  wanted = orders_of(model.config, model.system)[:orders]
  measured = [c for c in cells(model.config, model.system, names, rhos) if c['order'] in wanted]
  rows = []
  for cell in tqdm.tqdm(measured, 'distances', disable=None):
    rows += study.measure(model, 1, **cell)
  return rows


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table, a value for each order in a cell, and the findings."""
  tables = []
  for title, values in panels(rows).items():
    texts = values.map(lambda of_orders: ' '.join(f'{value:.3g}' for value in of_orders))
    table = report.pivot(texts, 'solver', BUDGETS, ' evaluations')
    tables.append(table.assign(measure=title))
  table = pd.concat(tables, ignore_index=True)
  return table[['measure', *table.columns[:-1]]], [
    f'The orders: {", ".join(rows["order"].unique())}.'
  ]


def panels(rows: pd.DataFrame) -> dict[str, pd.Series]:
  """By title of what is measured: the lists of values of each solver (and rho) and budget."""
  rows = budgets_of(rows, BUDGETS)
  rows['line'] = rows['solver'] + [f', rho {rho}' if rho else '' for rho in rows['rho']]
  found = {}
  for metric, part in rows.groupby('metric', sort=False):
    titles = (
      PANELS
      if metric == PATH
      else {
        'distance': metric,
        'kernel': metric.replace('FD', 'kernel distance'),
      }
    )
    for column, title in titles.items():
      known = part[part[column] != ''].astype({column: float})
      if len(known):
        found[title] = known.groupby(['line', 'budget'], sort=False)[column].agg(list)
  return found


def draw(file: pathlib.Path, rows: pd.DataFrame):
  """One line a solver: the mean over orders, and a band from the best to the worst.

  Dashed lines have denser rows towards data; the dotted one is Euler's with the most evaluations.
  """
  found = panels(rows)
  figure, grid = plt.subplots(
    -(-len(found) // 2),
    2,
    figsize=(10, 3.9 * -(-len(found) // 2)),
    dpi=110,
    layout='constrained',
    squeeze=False,
  )
  for axes, (title, values) in zip(grid.flat, found.items(), strict=False):
    for name, line in values.groupby('line', sort=False):
      solver, _, rho = name.partition(', ')
      color = f'C{list(solvers.SOLVERS).index(solver)}'
      budgets, numbers = line.index.get_level_values('budget'), line.to_list()
      means = np.array([np.mean(n) for n in numbers])
      axes.plot(budgets, means, 'o--' if rho else 'o-', ms=4, color=color, label=name)
      low, high = ([f(n) for n in numbers] for f in (min, max))
      axes.fill_between(budgets, low, high, color=color, alpha=0.1, lw=0)
      if name == 'euler' and max(BUDGETS) in budgets:
        axes.axhline(means[-1], color=color, ls=':', lw=1)
    log = 'log' if min(map(min, values)) > 0 else 'symlog'
    axes.set(xscale='log', yscale=log, xlabel='evaluations of the network', ylabel=title)
    axes.set_xticks(BUDGETS, [str(b) for b in BUDGETS])
    axes.minorticks_off()
    axes.grid(alpha=0.3, which='both')
  handles, labels = grid.flat[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside lower center', ncols=4, frameon=False)
  figures.finish(figure, file)


if __name__ == '__main__':
  command.start(run, __doc__)
