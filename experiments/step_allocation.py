"""Steps where they are needed: shares that even out the groups' errors, against equal shares.

  python -m gdm_jax.main --config=configs/digits.py
  python -m experiments.step_allocation --config=configs/digits.py --config.sampling.solver=euler \\
    --config.evaluation.features=pixels --config.evaluation.seeds=0-999

For each budget of evaluations and order of the groups (a few, if the model knows all), measures
what every group's interval adds to the error (`allocation.interval_errors`), shares the steps out
by it (`allocation.allocate`), prints the shares as a flag for --mode=sample, and evaluates the same
seeds' images with both shares. About three minutes an order on two cores for 1,000 images. Adds to
workdir/allocation/results.csv row by row, skips existing rows, and draws figure.png; other solvers
and strategies join those in one workdir.

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
from gdm_jax import allocation, build, figures, sampling, schedule
from gdm_jax.evaluation import evaluator
from gdm_jax.evaluation.cells import Cells
from gdm_jax.runtime import sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training.workdir import load_ema

BUDGETS = (8, 16, 32)
BATCHES, BATCH = 2, 64  # of latents on which the errors are measured
REFERENCE = 64  # RK4 steps to what the errors are measured against
FIRST = 2**31  # seed of those, which no image is made from
KEYS = (*(key for key in evaluator.KEYS if key != 'steps'), 'evaluations', 'shares')
VALUES = ('steps', 'errors', 'metric', 'distance')
SHARES = {'equal': 0, 'allocated': 2}  # rounds of `allocation.allocate`; 0: equal shares


def run(config, workdir: pathlib.Path):
  """Measures both shares of each budget and order, prints them as flags and draws them.

  Raises ConfigError if the workdir holds no model, and for a solver that has no order.
  """
  # Check everything that can be wrong before any work.
  system, mesh = build.system(config), sharding.mesh()
  build.check_sampling(config, system)
  solver = build.solver(config)
  if not solver.order:
    raise ConfigError(f'sampling.solver = {solver.name!r} chooses its steps itself')
  checkpoint = evaluator.Checkpoint(*load_ema(config, workdir, system, mesh))
  config.sampling.strategy = build.sampling_order(config, system.strategies)[0]
  evaluation = evaluator.Evaluator(config, system, workdir / evaluator.FOLDER, mesh)
  cells = Cells(workdir / 'allocation' / 'results.csv', KEYS, VALUES)

  # Measure.
  for order in orders(config, system):
    config.sampling.order = order
    generation = generation_schedule(config, system, order)
    error_of = _lazily(_interval_measure, config, system, checkpoint.params, generation, mesh)
    bar = tqdm.tqdm([(b, s) for b in BUDGETS for s in SHARES], desc=f'{order}', disable=None)
    for budget, shares in bar:
      steps = solver.steps(budget)
      if steps < len(order):
        continue

      def measure(steps=steps, shares=shares, generation=generation, error_of=error_of):
        rounds = SHARES[shares]
        counts = allocation.allocate(generation, steps, error_of(), solver.order, rounds)
        config.sampling.steps = counts
        row = evaluation.row(config, evaluation(config, checkpoint), checkpoint)
        return {**row, 'errors': ' '.join(f'{e:.3g}' for e in error_of()(counts))}

      key = evaluation.key(config, checkpoint)
      cells.measure({**key, 'evaluations': budget, 'shares': shares}, measure)

  # Report the rows of this model and these seeds.
  key = evaluation.key(config, checkpoint)
  same = {name: key[name] for name in ('parameters', 'seeds', *evaluator.AGAINST)}
  rows = [row for row in cells.rows if {name: row[name] for name in same} == same]
  draw(rows, workdir / 'allocation' / 'figure.png')
  report(rows)
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


def _lazily(function, *args):
  """`function(*args)` when first called, and that value from then on."""
  return functools.cache(lambda: function(*args))


def generation_schedule(config, system, order) -> schedule.Schedule:
  """The schedule of generation in that order, over the refined groups."""
  strategy = system.strategies[config.sampling.strategy]
  cuts = config.sampling.cuts or strategy.cuts
  return schedule.sequential(order, cuts).over(strategy.indices)


def _interval_measure(config, system, params, generation, mesh):
  """Error callback for `allocation.allocate`, on held-out latents."""
  seeds = (FIRST + np.arange(BATCHES * BATCH)).astype(np.uint32).reshape(BATCHES, BATCH)
  draw_latents = jax.jit(
    sampling.latents, static_argnames='shape', out_shardings=sharding.batch_sharded(mesh)
  )
  latents = [draw_latents(batch, shape=tuple(config.data.shape)) for batch in seeds]
  labels = jax.device_put(build.sampling_labels(config, seeds[0]), sharding.batch_sharded(mesh))

  def predict(params, labels, x_t, alpha):
    return system.predictor.bind(params, labels, config.sampling.guidance)(x_t, alpha)

  return allocation.interval_measure(
    Partial(predict, params, labels),
    system.process,
    generation,
    latents,
    build.solver(config),
    REFERENCE,
  )


def draw(rows: list[dict[str, str]], file: pathlib.Path):
  """The largest error and the distance against evaluations: means over orders, and their range."""
  measured = {
    'largest error of a group': lambda row: max(map(float, row['errors'].split())),
    rows[0]['metric']: lambda row: float(row['distance']),
  }
  lines = {(row['strategy'], row['solver']): None for row in rows}  # unique, in the file's order
  budgets = sorted({int(row['evaluations']) for row in rows})
  figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), dpi=120, layout='constrained')
  for axis, (title, value) in zip(axes, measured.items(), strict=True):
    for (i, line), shares in itertools.product(enumerate(lines), SHARES):
      same = [r for r in rows if (r['strategy'], r['solver'], r['shares']) == (*line, shares)]
      values = {b: [value(r) for r in same if r['evaluations'] == str(b)] for b in budgets}
      ranges = {b: (np.mean(v), min(v), max(v)) for b, v in values.items() if v}
      mean, low, high = np.transpose([*ranges.values()] or np.zeros((0, 3)))
      style = {'ls': '--', 'mfc': 'white'} if shares == 'equal' else {'ls': '-'}
      axis.plot(
        [*ranges], mean, 'o', ms=5, color=f'C{i}', label=', '.join((*line, shares)), **style
      )
      axis.fill_between([*ranges], low, high, color=f'C{i}', alpha=0.12, lw=0)
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
