"""Fig. 5: how the order of generation changes the quality of samples, for many random orders.

  python -m gdm_jax.main --config=configs/digits_blockwise.py
  python -m experiments.order_sweep --config=configs/digits_blockwise.py \\
    --config.evaluation.seeds=0-499 --config.sampling.solver=midpoint --config.sampling.steps=18

Evaluates --orders random orders of one model's groups (all, if there are no more), each from
--repeats sets of seeds. One program walks --at_once orders side by side on every device, by default
as many as its memory allows (on a CPU one, where more are no faster). results.csv is written order
by order: an interrupted sweep resumes and ends with the same rows. The figure has the mean and the
standard deviation of each order, sorted, and the generation of the best and the worst; the rank
correlation of the repeats says whether the orders differ by more than the luck of the seeds. The
paper: FID5K of 100 orders of 3 x 3 blocks, three runs each; it names neither the solver nor the
steps of this figure. With those of Table 1, Euler and 128 steps, at that scale:

  python -m experiments.order_sweep --config=configs/cifar10_blockwise.py \\
    --config.evaluation.weights=inception.npz --config.evaluation.seeds=0-4999

192 million evaluations of 40 GFLOP (7.7 EFLOP: 9 hours of a device that sustains 240 TFLOP/s), and
on the host 300 distances of 2,048 features.
"""

import functools
import itertools
import math
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
import pandas as pd
import tqdm
from matplotlib import pyplot as plt
from scipy import stats

from experiments.lib import command
from experiments.lib.study import Model, Study, disjoint_seed_sets, spread_caption
from gdm_jax import build, figures, sampling
from gdm_jax.config import parse_seeds
from gdm_jax.evaluation.summary import Collector, Scores, scores
from gdm_jax.runtime import memory, sharding
from gdm_jax.runtime.batching import padded_batches
from gdm_jax.runtime.errors import ConfigError

IMAGES = 2  # of an order in the figure
PRINTED = 5  # of the best and of the worst orders


def run(config, workdir: pathlib.Path, *, orders: int = 100, repeats: int = 3, at_once: int = 0):
  """Evaluates random orders. Raises ConfigError for a strategy trained on one order."""
  study = Study('order_sweep', workdir, judge=config.evaluation.features)
  (model,) = study.models(config, [workdir])
  name, _ = build.sampling_order(model.config, model.system.strategies)
  strategy = model.system.strategies[name]
  if strategy.order:
    raise ConfigError(f'strategies.{name}: trained on the order {strategy.order}')
  if len(guidance := model.config.sampling.guidance) > 1:
    raise ConfigError(f'sampling.guidance = {guidance}: must be one number for all orders')
  tested = orders_to_test(strategy.num_groups, orders)
  rows = measure(study, model, tested, repeats, at_once)
  picture = study.folder / 'figure.png'
  draw(picture, rows, functools.partial(intermediate_images, model))
  study.publish(__doc__, *summarise(rows), [picture], rows, model.config, PRINTED)


def orders_to_test(k: int, count: int) -> list[tuple[int, ...]]:
  """Distinct orders of k groups, drawn with seed 0; all of them if there are no more."""
  if math.factorial(k) <= count:
    return list(itertools.permutations(range(k)))
  rng, distinct = np.random.default_rng(0), {}
  while len(distinct) < count:
    distinct[tuple(rng.permutation(k).tolist())] = None
  return list(distinct)


def measure(
  study: Study, model: Model, orders: Sequence[tuple[int, ...]], repeats: int, at_once: int = 0
) -> pd.DataFrame:
  """The rows of each order, one a repeat; existing ones are not measured again.

  at_once: the orders that a device walks side by side; 0 is as many as fit.
  """
  mesh = sharding.mesh()
  batch = max(model.config.sampling.batch // mesh.size, 1)
  walk = sweep_program(model, mesh)
  at_once = at_once or orders_that_fit(model, walk, mesh, batch, len(orders))
  together = mesh.size * at_once
  seed_sets = disjoint_seed_sets(model.config.evaluation.seeds, repeats)
  rows = []
  with tqdm.tqdm(total=len(orders) * repeats, unit=' cells', disable=None) as bar:
    for first, seeds in itertools.product(range(0, len(orders), together), seed_sets):
      # Always the same orders side by side, so that a rerun repeats the very same arithmetic.
      side_by_side = orders[first : first + together]
      configs = [model.with_sampling(seeds, order=order) for order in side_by_side]

      @functools.cache
      def scores_of_all(configs=tuple(configs)):
        return score_orders(model, walk, configs, batch, together)

      for i, config in enumerate(configs):

        def row(i=i, config=config, scores_of_all=scores_of_all):
          return model.row(config, scores_of_all()[i])

        rows.append(study.cells.measure(model.key(config), row))
        bar.update()
  return pd.DataFrame(rows)


def score_orders(model: Model, walk, configs, batch, together) -> list[Scores]:
  """The scores of several orders' images from the same seeds, `together` of them in a program."""
  tables = [build.sampling_table(config, model.system) for config in configs]
  # As many always, so that one program serves the last round too.
  tables = np.stack([tables[i % len(tables)] for i in range(together)])
  collectors = [Collector() for _ in tables]
  seeds = parse_seeds(configs[0], 'evaluation.seeds')
  for indices, valid in padded_batches(len(seeds), batch):
    labels = build.sampling_labels(model.config, seeds[indices])
    x = walk(model.checkpoint.params, tables, seeds[indices].astype(np.uint32), labels)
    model.evaluator.collect(collectors, x, seeds[indices[:valid]])
  return [scores(c.summary(), model.evaluator.real) for c in collectors[: len(configs)]]


def orders_that_fit(model: Model, walk, mesh, batch: int, count: int) -> int:
  """How many orders of a batch of seeds fit into a device's memory, side by side.

  On a CPU one: more are no faster there, and need memory.
  """
  device = mesh.devices.flat[0]
  if device.platform == 'cpu':
    return 1
  table = build.sampling_table(model.config, model.system)
  tables = jax.ShapeDtypeStruct((mesh.size, *table.shape), table.dtype)
  seeds, labels = (jax.ShapeDtypeStruct((batch,), kind) for kind in (np.uint32, np.int32))
  one = walk.lower(model.checkpoint.params, tables, seeds, labels).compile()
  return memory.how_many_fit(one, device, -(-count // mesh.size))


def sweep_program(model: Model, mesh):
  """walk(params, tables [m, rows, k], seeds [n], labels [n]) -> [m * n, *grid, c], jitted.

  Every device walks as many of the tables for all the seeds.
  """
  batch_sharded, replicated = sharding.batch_sharded(mesh), sharding.replicated(mesh)
  c, shape = model.config.sampling, model.config.data.shape
  solver = build.solver(model.config)

  @functools.partial(
    jax.jit,
    in_shardings=(replicated, batch_sharded, replicated, replicated),
    out_shardings=batch_sharded,
  )
  def walk(params, tables, seeds, labels):
    predict = model.system.predictor.bind(params, labels, *c.guidance)
    z = sampling.latents(seeds, shape)
    x = sampling.sweep(predict, model.system.process, tables, z, solver)
    return x.reshape(-1, *shape)

  return walk


def distances(rows: pd.DataFrame) -> pd.DataFrame:
  """The distances of each order, a line, from each set of seeds; the best order first."""
  table = rows.assign(distance=rows['distance'].astype(float))
  table = table.pivot(index='order', columns='seeds', values='distance')
  table = table.loc[rows['order'].unique(), rows['seeds'].unique()]
  return table.iloc[np.argsort(table.to_numpy().mean(1))]


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table, best order first, and the findings."""
  metric, by_order = rows['metric'].iloc[0], distances(rows)
  values, repeats = by_order.to_numpy(), by_order.shape[1]
  means, kernels = values.mean(1), rows.astype({'kernel': float}).groupby('order')['kernel'].mean()
  deviations = values.std(axis=1, ddof=1) if repeats > 1 else []
  table = pd.DataFrame(
    {
      'rank': range(1, len(values) + 1),
      'order': by_order.index,
      metric: [f'{mean:.4g}' for mean in means],
      'deviation': [f'{deviation:.2g}' for deviation in deviations] or '',
      'repeats': [' '.join(f'{value:.4g}' for value in line) for line in values],
      'kernel distance': [f'{value:.3g}' for value in kernels[by_order.index]],
    }
  )
  findings = [f'{len(values)} orders: {metric} {means[0]:.4g} to {means[-1]:.4g}.']
  if repeats > 1 and len(values) > 1:
    # All orders of a repeat share its seeds, so a shift of all together is no difference.
    of_orders = (values - values.mean(0)).var(axis=1, ddof=1)
    noise = np.sqrt(of_orders.sum() / (len(values) - 1))
    findings.append(
      f'The rank correlation (Spearman) between repeats is {rank_agreement(values):.2f}: 1 if the '
      f"order decides, 0 if the seeds do. The orders' means deviate by {means.std(ddof=1):.2g}; "
      f'the repeats of an order, beyond what all orders share, by {noise:.2g}, so a mean of '
      f'{repeats} by {noise / repeats**0.5:.2g}.'
    )
  return table, [*findings, spread_caption(rows)]


def rank_agreement(values: np.ndarray) -> float:
  """Spearman's correlation of the ranks in [orders, repeats], the mean over pairs of repeats."""
  pairs = itertools.combinations(values.T, 2)
  correlations = [stats.spearmanr(a, b).statistic for a, b in pairs]
  return float(np.mean(correlations)) if correlations else float('nan')


def intermediate_images(model: Model, order: str) -> np.ndarray:
  """Images during generation, [images, k + 1, *grid, c]: latents, and after each group's steps."""
  order = tuple(map(int, order.split('-')))
  config = model.with_sampling(model.config.evaluation.seeds, order=order)
  table = build.sampling_table(config, model.system)
  seeds = np.arange(IMAGES, dtype=np.uint32)
  z = sampling.latents(seeds, config.data.shape)
  labels = build.sampling_labels(config, seeds)
  c = config.sampling
  predict = model.system.predictor.bind(model.checkpoint.params, labels, *c.guidance)
  points = sampling.trajectory(predict, model.system.process, table, z, build.solver(model.config))
  # After the rows on which every group is all noise or all data.
  boundaries = np.flatnonzero(np.isin(table, (0, 1)).all(axis=1))
  return np.asarray(points)[boundaries].swapaxes(0, 1)


def draw(file: pathlib.Path, rows: pd.DataFrame, images_of: Callable[[str], np.ndarray]):
  """Sorted means with error bars; below them the generation of the best and the worst order."""
  figure, axes = plt.subplots(
    3, 1, figsize=(9, 8), dpi=120, layout='constrained', height_ratios=(2, 1, 1)
  )
  by_order = distances(rows)
  values = by_order.to_numpy()
  mean = values.mean(1)
  deviation = values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
  axes[0].errorbar(range(1, len(mean) + 1), mean, deviation, fmt='o', ms=3, capsize=2, lw=1)
  axes[0].set(xlabel='order, by its mean', ylabel=rows['metric'].iloc[0])
  axes[0].grid(alpha=0.3)
  for below, title, order in zip(axes[1:], ('best', 'worst'), by_order.index[[0, -1]], strict=True):
    images = images_of(order)
    lines, columns = images.shape[:2]
    below.imshow(figures.overview(images.reshape(lines * columns, *images.shape[2:]), 48, columns))
    below.set_title(f'{title}: {order}')
    below.axis('off')
  figures.finish(figure, file)


if __name__ == '__main__':
  command.start(run, __doc__)
