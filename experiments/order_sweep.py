"""Fig. 5: how the order of generation changes the quality of samples, for many random orders.

  python -m gdm_jax.main --config=configs/digits_blockwise.py
  python -m experiments.order_sweep --config=configs/digits_blockwise.py \\
    --config.evaluation.seeds=0-499 --config.sampling.solver=midpoint --config.sampling.steps=18

--orders random orders of one model's groups (all, where there are no more), each from --repeats
sets of seeds. One program walks as many orders side by side as there are devices, an order on each,
and is compiled once. results.csv is written order by order: stopped and run again, it goes on and
ends with the same rows. The figure shows mean and standard deviation of each order, sorted, and the
generation of the best and the worst; the rank correlation of the repeats says whether the orders
differ by more than the luck of the seeds. The paper: FID5K of 100 orders of 3 x 3 blocks, three
runs each, Euler, 128 steps. At that scale:

  python -m experiments.order_sweep --config=configs/cifar10_blockwise.py \\
    --config.evaluation.weights=inception.npz --config.evaluation.seeds=0-4999

192 million evaluations of 40 GFLOP (7.7 EFLOP: 9 hours of a device that sustains 240 TFLOP/s), and
on the host 300 distances of 2,048 features.
"""

import functools
import itertools
import math
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
import tqdm
from jaxtyping import Float
from matplotlib import pyplot as plt
from scipy import stats

from experiments.lib import command, study
from gdm_jax import build, figures, sampling
from gdm_jax.config import parse_seeds
from gdm_jax.evaluation.summary import Collector, Scores, scores
from gdm_jax.runtime import sharding
from gdm_jax.runtime.batching import padded_batches
from gdm_jax.runtime.errors import ConfigError

SHOWN = 2  # images of an order in the figure


def run(config, workdir: pathlib.Path, *, orders: int = 100, repeats: int = 3):
  """Evaluates random orders. Raises ConfigError for a strategy trained on one order."""
  this = study.Study('order_sweep', workdir)
  (model,) = this.models(config, [workdir])
  name, _ = build.sampling_order(model.config, model.system.strategies)
  if model.system.strategies[name].order:
    raise ConfigError(
      f'strategies.{name}: trained on the order {model.system.strategies[name].order}'
    )
  tested = orders_to_test(model.system.strategies[name].num_groups, orders)
  rows = measure(this, model, tested, repeats)

  values = distances(rows)
  ranking = np.argsort(values.mean(1))
  extremes = [tested[ranking[0]], tested[ranking[-1]]]
  processes = [(order, intermediate_images(model, order)) for order in extremes]
  picture = this.folder / 'figure.png'
  draw(picture, values[ranking], rows[0][0]['metric'], processes)
  table, findings = summarise(rows)
  flat = [row for group in rows for row in group]
  printed = table if len(table) <= 10 else [*table[:5], *table[-5:]]
  this.publish(__doc__, table, findings, [picture], flat, model.config, printed)


def distances(rows: Sequence[Sequence[study.Row]]) -> Float[np.ndarray, 'orders repeats']:
  """The distances of rows by order and repeat."""
  return np.array([[float(row['distance']) for row in group] for group in rows])


def summarise(rows: Sequence[Sequence[study.Row]]) -> tuple[list[dict], list[str]]:
  """The table, best order first, and the findings, of rows by order and repeat."""
  metric, values = rows[0][0]['metric'], distances(rows)
  repeats = values.shape[1]
  table = [
    {
      'rank': rank + 1,
      'order': rows[i][0]['order'],
      metric: f'{values[i].mean():.4g}',
      'deviation': f'{values[i].std(ddof=1):.2g}' if repeats > 1 else '',
      'repeats': ' '.join(f'{value:.4g}' for value in values[i]),
    }
    for rank, i in enumerate(np.argsort(values.mean(1)))
  ]
  findings = [
    f'{len(rows)} orders: {metric} {values.mean(1).min():.4g} to {values.mean(1).max():.4g}.'
  ]
  if repeats > 1:
    # All orders of a repeat share its seeds, so a shift of all together is no difference.
    noise = np.sqrt((values - values.mean(0)).var(axis=1, ddof=1).mean())
    spread = values.mean(1).std(ddof=1)
    findings.append(
      f'The rank correlation (Spearman) between repeats is {rank_agreement(values):.2f}: 1 if the '
      f"order decides, 0 if the seeds do. The orders' means deviate by {spread:.2g}; the repeats "
      f'of an order, beyond what all orders share, by {noise:.2g}, so a mean of {repeats} by '
      f'{noise / repeats**0.5:.2g}.'
    )
  return table, [*findings, study.spread_caption(rows[0])]


def orders_to_test(k: int, count: int) -> list[tuple[int, ...]]:
  """Distinct orders of k groups, drawn with seed 0; all of them if there are no more."""
  if math.factorial(k) <= count:
    return list(itertools.permutations(range(k)))
  rng, distinct = np.random.default_rng(0), {}
  while len(distinct) < count:
    distinct[tuple(rng.permutation(k).tolist())] = None
  return list(distinct)


def measure(
  this: study.Study, model: study.Model, orders: Sequence[tuple[int, ...]], repeats: int
) -> list[list[study.Row]]:
  """The rows of each order, one a repeat; existing ones are not measured again."""
  mesh = sharding.mesh()
  batch = max(model.config.sampling.batch // mesh.size, 1)
  walk = compile_sweep(model, mesh)
  seed_sets = study.disjoint_seed_sets(model.config.evaluation.seeds, repeats)
  rounds = list(itertools.product(range(0, len(orders), mesh.size), seed_sets))
  with tqdm.tqdm(total=len(orders) * repeats, unit=' cells', disable=None) as bar:
    for first, seeds in rounds:
      # Always the same orders side by side, so that a rerun repeats the very same arithmetic.
      configs = [
        model.with_sampling(seeds, order=order) for order in orders[first : first + mesh.size]
      ]
      if not all(model.key(config) in this.cells for config in configs):
        measured = score_orders(model, walk, configs, batch, mesh)
        rows = [model.row(*pair) for pair in zip(configs, measured, strict=True)]
        this.cells.add(*(row for row in rows if row not in this.cells))
      bar.update(len(configs))
  return [
    [this.cells.get(model.key(model.with_sampling(seeds, order=order))) for seeds in seed_sets]
    for order in orders
  ]


def score_orders(model, walk, configs, batch, mesh) -> list[Scores]:
  """The scores of several orders' images from the same seeds."""
  tables = [build.sampling_table(config, model.system) for config in configs]
  # As many always, so that one program serves the last round too.
  tables = np.stack([tables[i % len(tables)] for i in range(mesh.size)])
  collectors = [Collector() for _ in tables]
  seeds = parse_seeds(configs[0], 'evaluation.seeds')
  for indices, valid in padded_batches(len(seeds), batch):
    labels = build.sampling_labels(model.config, seeds[indices])
    x = walk(tables, seeds[indices].astype(np.uint32), labels)
    model.evaluator.collect(collectors, x, seeds[indices[:valid]])
  return [scores(c.summary(), model.evaluator.real) for c in collectors[: len(configs)]]


def compile_sweep(model, mesh):
  """walk(tables [devices, rows, k], seeds [n], labels [n]) -> [devices * n, *grid, c], compiled.

  Every device walks one order's table for all the seeds.
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
    predict = model.system.predictor.bind(params, labels, c.guidance)
    z = sampling.latents(seeds, shape)
    x = sampling.sweep(predict, model.system.process, tables, z, solver)
    return x.reshape(-1, *shape)

  return functools.partial(walk, model.checkpoint.params)


def rank_agreement(values: np.ndarray) -> float:
  """Spearman's correlation of the ranks in [orders, repeats], the mean over pairs of repeats."""
  pairs = itertools.combinations(values.T, 2)
  correlations = [stats.spearmanr(a, b).statistic for a, b in pairs]
  return float(np.mean(correlations)) if correlations else float('nan')


def intermediate_images(model, order) -> np.ndarray:
  """Images during generation, [images, k + 1, *grid, c]: latents, and after each group's steps."""
  config = model.with_sampling(model.config.evaluation.seeds, order=order)
  table = build.sampling_table(config, model.system)
  seeds = np.arange(SHOWN, dtype=np.uint32)
  z = sampling.latents(seeds, config.data.shape)
  labels = build.sampling_labels(config, seeds)
  c = config.sampling
  predict = model.system.predictor.bind(model.checkpoint.params, labels, c.guidance)
  points = sampling.trajectory(predict, model.system.process, table, z, build.solver(model.config))
  # After the rows on which every group is all noise or all data.
  boundaries = np.flatnonzero(np.isin(table, (0, 1)).all(axis=1))
  return np.asarray(points)[boundaries].swapaxes(0, 1)


def draw(file: pathlib.Path, values: np.ndarray, metric: str, processes):
  """Sorted means with error bars; below them the generation of the extremes."""
  figure, axes = plt.subplots(
    3, 1, figsize=(9, 8), dpi=120, layout='constrained', height_ratios=(2, 1, 1)
  )
  mean = values.mean(1)
  deviation = values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
  axes[0].errorbar(range(1, len(mean) + 1), mean, deviation, fmt='o', ms=3, capsize=2, lw=1)
  axes[0].set(xlabel='order, by its mean', ylabel=metric)
  axes[0].grid(alpha=0.3)
  for below, title, (order, images) in zip(axes[1:], ('best', 'worst'), processes, strict=True):
    lines, columns = images.shape[:2]
    below.imshow(figures.overview(images.reshape(lines * columns, *images.shape[2:]), 48, columns))
    below.set_title(f'{title}: {"-".join(map(str, order))}')
    below.axis('off')
  figures.finish(figure, file)


if __name__ == '__main__':
  command.start(run, __doc__)
