"""Steps where they are needed: shares that even out the groups' errors, against equal shares.

  python -m gdm_jax.main --config=configs/digits.py
  python -m experiments.step_allocation --config=configs/digits.py --config.sampling.solver=euler \\
    --config.evaluation.features=pixels --config.evaluation.seeds=0-999

For each budget of evaluations and order of the groups (a few, where the model knows all), measures
what every group's interval adds to the error (`allocation.interval_errors`), shares the steps out
anew (`schedule.allocate`), prints the shares as a flag for --mode=sample, and evaluates the same
seeds' images with both shares. About three minutes an order on two cores for 1,000 images. Adds to
workdir/allocation/results.csv cell by cell, skips what is there, and draws figure.png; other
solvers and strategies join those in one workdir.

The figure in results/ is of frequency bands, trained with --config.basis.name=cosine
--config.strategies.main.grouping=bands --config.strategies.main.groups=4,16
--config.strategies.main.order=0,1,2.
"""

import functools
import itertools
import pathlib

import jax
import numpy as np
import tqdm
from jax.tree_util import Partial
from matplotlib import pyplot as plt
from matplotlib import ticker

from experiments.lib import command
from experiments.quality_against_evaluations import orders
from gdm_jax import allocation, build, figures, sampling, schedule, solvers
from gdm_jax.evaluation import evaluator
from gdm_jax.evaluation.cells import Cells
from gdm_jax.runtime import sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training.checkpoint import trained

BUDGETS = (8, 16, 32)
BATCHES, BATCH = 2, 64  # of latents on which the errors are measured
REFERENCE = 64  # RK4 steps to what the errors are measured against
FIRST = 2**31  # seed of those: none that an image is made of
KEYS = (*(key for key in evaluator.KEYS if key != 'steps'), 'evaluations', 'shares')
VALUES = ('steps', 'errors', 'metric', 'distance')
SHARES = {'equal': 0, 'allocated': 2}  # rounds of `schedule.allocate`; none: as they begin


def run(config, workdir: pathlib.Path):
  """Measures, prints and draws.

  Raises ConfigError where the workdir holds no model, and for a solver that has no order.
  """
  system, mesh = build.system(config), sharding.mesh()
  build.sampling_table(config, system)  # names what is wrong in config.sampling
  name = config.sampling.solver
  if not (p := solvers.get_solver(name).order):
    raise ConfigError(f'sampling.solver = {name!r} chooses its steps itself')
  weights = evaluator.Checkpoint(*trained(config, workdir, system, mesh))
  config.sampling.strategy = build.sampling_order(config, system.strategies)[0]
  evaluation = evaluator.Evaluator(config, system, workdir / 'evaluation', mesh)
  cells = Cells(workdir / 'allocation' / 'results.csv', KEYS, VALUES)

  for order in orders(config, system):
    measure = None
    bar = tqdm.tqdm([(b, s) for b in BUDGETS for s in SHARES], desc=f'{order}', disable=None)
    for budget, shares in bar:
      config.sampling.order = order
      cell = {'evaluations': budget, 'shares': shares}
      steps = solvers.get_solver(name).steps(budget)
      if steps < len(order) or {**evaluation.key(config, weights), **cell} in cells:
        continue
      plan = plan_of(config, system, order)
      measure = measure or _measure(
        config, system, weights.params, plan, mesh
      )  # once: it is the reference
      counts = schedule.allocate(plan, steps, measure, p, SHARES[shares])
      config.sampling.steps = counts
      row = evaluation.row(config, evaluation(config, weights), weights)
      cells.add({**row, **cell, 'errors': ' '.join(f'{e:.3g}' for e in measure(counts))})
  wanted = evaluation.key(config, weights)
  same = {key: wanted[key] for key in ('parameters', 'seeds', *evaluator.AGAINST)}
  mine = [row for row in cells.rows if {key: row[key] for key in same} == same]
  draw(mine, workdir / 'allocation' / 'figure.png')
  report(mine)
  print(f'see {workdir}/allocation/results.csv and figure.png')


def report(rows: list[dict[str, str]]):
  """Prints every row, and the flags that take its shares."""
  for row in rows:
    order, steps = (row[key].replace('-', ',') for key in ('order', 'steps'))
    print(
      f'{row["strategy"]}, {row["solver"]}, {row["evaluations"]} evaluations, {row["shares"]}: '
      f'errors {row["errors"]}, {row["metric"]} {row["distance"]}\n'
      f'  --config.sampling.order={order} --config.sampling.steps={steps}'
    )


def plan_of(config, system, order) -> schedule.Schedule:
  """The schedule of generation in that order, over the refined groups."""
  c = config.sampling
  strategy = system.strategies[c.strategy]
  return schedule.sequential(order, c.cuts or strategy.cuts).over(strategy.indices)


def _measure(config, system, params, plan, mesh):
  """measure() for `schedule.allocate`, on latents that no image is made of."""
  seeds = (FIRST + np.arange(BATCHES * BATCH)).astype(np.uint32).reshape(BATCHES, BATCH)
  draw_latents = jax.jit(
    sampling.latents, static_argnames='shape', out_shardings=sharding.batch_sharded(mesh)
  )
  batches = [draw_latents(some, shape=tuple(config.data.shape)) for some in seeds]
  labels = jax.device_put(build.sampling_labels(config, seeds[0]), sharding.batch_sharded(mesh))

  def predict(params, labels, x_t, alpha):
    of = functools.partial(system.predict, params)
    return sampling.guided(of, labels, config.sampling.guidance)(x_t, alpha)

  return allocation.interval_measure(
    Partial(predict, params, labels),
    system.process,
    plan,
    batches,
    config.sampling.solver,
    REFERENCE,
  )


def draw(rows: list[dict[str, str]], file: pathlib.Path):
  """The largest error and the distance against evaluations: means over orders, and their range."""
  measured = {
    'largest error of a group': lambda row: max(map(float, row['errors'].split())),
    rows[0]['metric']: lambda row: float(row['distance']),
  }
  lines = {(row['strategy'], row['solver']): None for row in rows}  # in the order of the file
  budgets = sorted({int(row['evaluations']) for row in rows})
  figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), dpi=120, layout='constrained')
  for axis, (title, value) in zip(axes, measured.items(), strict=True):
    for (i, line), shares in itertools.product(enumerate(lines), SHARES):
      mine = [r for r in rows if (r['strategy'], r['solver'], r['shares']) == (*line, shares)]
      values = {b: [value(r) for r in mine if r['evaluations'] == str(b)] for b in budgets}
      there = {b: (np.mean(v), min(v), max(v)) for b, v in values.items() if v}
      mean, low, high = np.transpose([*there.values()] or np.zeros((0, 3)))
      style = {'ls': '--', 'mfc': 'white'} if shares == 'equal' else {'ls': '-'}
      axis.plot([*there], mean, 'o', ms=5, color=f'C{i}', label=', '.join((*line, shares)), **style)
      axis.fill_between([*there], low, high, color=f'C{i}', alpha=0.12, lw=0)
    axis.set(xscale='log', yscale='log', xlabel='evaluations of the network', ylabel=title)
    axis.set_xticks(budgets, [str(b) for b in budgets])
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
    axis.minorticks_off()
    axis.grid(alpha=0.3)
  handles = axes[0].get_legend_handles_labels()[0]
  figure.legend(handles=handles, loc='outside lower center', ncols=2, frameon=False)
  figures.finish(figure, file)


if __name__ == '__main__':
  command.start(run, __doc__)
