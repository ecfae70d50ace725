"""Steps for the groups that need them: shares that even out the groups' errors, and equal shares.

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
import pathlib

import jax
import numpy as np
import pandas as pd
import tqdm
from jax.tree_util import Partial
from matplotlib import pyplot as plt
from matplotlib import ticker

from experiments.lib import command
from experiments.lib.study import Model, Study
from experiments.quality_against_evaluations import fewest_steps, orders_of
from gdm_jax import allocation, build, figures, sampling, schedule
from gdm_jax.evaluation import evaluator
from gdm_jax.runtime import distributed, sharding
from gdm_jax.runtime.errors import ConfigError

SAME = ('parameters', 'seeds', 'rho', 'guidance', 'labels', 'cuts', *evaluator.AGAINST)
"""What rows have in common that are drawn together."""

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
  build.check_sampling(config, build.system(config))
  if not (solver := build.solver(config)).order:
    raise ConfigError(f'sampling.solver = {solver.name!r} chooses its steps itself')
  study = Study('allocation', workdir, KEYS, VALUES)
  model = Model(config, workdir, workdir)
  rows = measure(study, model)
  draw(study.folder / 'figure.png', rows)
  if distributed.is_primary():
    print(*summarise(rows), f'see {study.folder}/results.csv and figure.png', sep='\n')


def measure(study: Study, model: Model) -> pd.DataFrame:
  """The rows of the file that are of this model and these seeds, with the missing ones measured."""
  c, solver = model.config.sampling, build.solver(model.config)
  c.strategy = build.sampling_order(model.config, model.system.strategies)[0]
  fewest = fewest_steps(model.config, model.system)
  for order in orders_of(model.config, model.system):
    generation = generation_schedule(model, order)
    error_of = _lazily(_interval_measure, model, generation)
    bar = tqdm.tqdm([(b, s) for b in BUDGETS for s in SHARES], desc=f'{order}', disable=None)
    for budget, shares in bar:
      steps = solver.steps(budget)
      if steps >= fewest:
        measure_shares = functools.partial(
          _measure_shares, model, order, steps, SHARES[shares], generation, error_of
        )
        key = model.key(model.with_sampling(model.config.evaluation.seeds, order=order))
        study.cells.measure({**key, 'evaluations': budget, 'shares': shares}, measure_shares)

  key = model.key(model.config)
  same = {name: key[name] for name in SAME}
  rows = [row for row in study.cells.rows if same.items() <= row.items()]
  if not rows:
    raise ConfigError(f'{max(BUDGETS)} evaluations are too few for the groups of {c.strategy}')
  return pd.DataFrame(rows)


def _measure_shares(model, order, steps, rounds, generation, error_of):
  """The distance with the steps shared out in some rounds, and the errors of the groups."""
  counts = allocation.allocate(
    generation, steps, error_of(), build.solver(model.config).order, rounds
  )
  config = model.with_sampling(model.config.evaluation.seeds, order=order, steps=counts)
  row = model.row(config, model.evaluator(config, model.checkpoint))
  errors = ' '.join(f'{error:.3g}' for error in error_of()(counts))
  return {'errors': errors, **{key: row[key] for key in VALUES if key in row}}


def summarise(rows: pd.DataFrame) -> list[str]:
  """What each row measured, and the flags that take its shares."""
  lines = []
  for row in rows.to_dict('records'):
    order, steps = (row[key].replace('-', ',') for key in ('order', 'steps'))
    lines += [
      f'{row["strategy"]}, {row["solver"]}, {row["evaluations"]} evaluations, {row["shares"]}: '
      f'errors {row["errors"]}, {row["metric"]} {row["distance"]}',
      f'  --config.sampling.order={order} --config.sampling.steps={steps}',
    ]
  return lines


def _lazily(function, *args):
  """`function(*args)` when first called, and that value from then on."""
  return functools.cache(lambda: function(*args))


def generation_schedule(model: Model, order) -> schedule.Schedule:
  """The schedule of generation in that order, over the refined groups."""
  c = model.config.sampling
  strategy = model.system.strategies[c.strategy]
  return strategy.schedule(order, c.cuts or None)


def _interval_measure(model, generation):
  """Error callback for `allocation.allocate`, on held-out latents."""
  config, predictor = model.config, model.system.predictor
  split = sharding.batch_sharded(model.mesh)
  seeds = (FIRST + np.arange(BATCHES * BATCH)).astype(np.uint32).reshape(BATCHES, BATCH)
  draw_latents = jax.jit(sampling.latents, static_argnames='shape', out_shardings=split)
  latents = [draw_latents(batch, shape=tuple(config.data.shape)) for batch in seeds]
  labels = jax.device_put(build.sampling_labels(config, seeds[0]), split)

  guidance = build.sampling_guidance(config, model.system)

  def predict(params, labels, x_t, alpha):
    return predictor.bind(params, labels, guidance)(x_t, alpha)

  return allocation.interval_measure(
    Partial(predict, model.checkpoint.params, labels),
    model.system.process,
    generation,
    latents,
    build.solver(config),
    REFERENCE,
    config.sampling.rho,
  )


def draw(file: pathlib.Path, rows: pd.DataFrame):
  """The largest error and the distance against evaluations: means over orders, and their range."""
  measured = rows.assign(
    evaluations=rows['evaluations'].astype(int),
    distance=rows['distance'].astype(float),
    error=[max(map(float, errors.split())) for errors in rows['errors']],
  )
  titles = {'error': 'largest error of a group', 'distance': rows['metric'].iloc[0]}
  budgets = sorted(measured['evaluations'].unique())
  figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), dpi=120, layout='constrained')
  for axis, (column, title) in zip(axes, titles.items(), strict=True):
    for i, (names, line) in enumerate(measured.groupby(['strategy', 'solver'], sort=False)):
      for shares in SHARES:
        values = line[line['shares'] == shares].groupby('evaluations')[column]
        ranges = values.agg(['mean', 'min', 'max'])
        style = {'ls': '--', 'mfc': 'white'} if shares == 'equal' else {'ls': '-'}
        label = ', '.join((*names, shares))
        axis.plot(ranges.index, ranges['mean'], 'o', ms=5, color=f'C{i}', label=label, **style)
        axis.fill_between(
          ranges.index, ranges['min'], ranges['max'], color=f'C{i}', alpha=0.12, lw=0
        )
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
