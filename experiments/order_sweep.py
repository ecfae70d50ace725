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

import jax
import numpy as np
import tqdm
from matplotlib import pyplot as plt
from scipy import stats

from experiments.lib import command, report, study
from gdm_jax import build, figures, sampling
from gdm_jax.config import parse_seeds
from gdm_jax.evaluation.summary import Collector, Scores, scores
from gdm_jax.runtime import sharding
from gdm_jax.runtime.errors import ConfigError

SHOWN = 2  # images of an order in the figure


def run(config, workdir: pathlib.Path, *, orders: int = 100, repeats: int = 3):
  """Measures, draws and reports. Raises ConfigError for a strategy that has one order alone."""
  found = study.Study('order_sweep', workdir)
  (model,) = found.models(config, [workdir])
  name, _ = build.sampling_order(model.config, model.system.strategies)
  if model.system.strategies[name].order:
    raise ConfigError(
      f'strategies.{name}: trained on the order {model.system.strategies[name].order}'
    )
  chosen = random_orders(model.system.strategies[name].num_groups, orders)
  rows = measure(found, model, chosen, repeats)

  metric = rows[0][0]['metric']
  values = np.array([[float(row['distance']) for row in some] for some in rows])
  ranking = np.argsort(values.mean(1))
  agreement = rank_agreement(values)
  extremes = [chosen[ranking[0]], chosen[ranking[-1]]]
  picture = found.folder / 'figure.png'
  draw(picture, values[ranking], metric, [(order, on_its_way(model, order)) for order in extremes])
  table = [
    {
      'rank': rank + 1,
      'order': '-'.join(map(str, chosen[i])),
      metric: f'{values[i].mean():.4g}',
      'deviation': f'{values[i].std(ddof=1):.2g}' if repeats > 1 else '',
      'repeats': ' '.join(f'{value:.4g}' for value in values[i]),
    }
    for rank, i in enumerate(ranking)
  ]
  said = [
    f'{len(chosen)} orders: {metric} {values.mean(1).min():.4g} to {values.mean(1).max():.4g}.'
  ]
  if repeats > 1:
    # All orders of a repeat share its seeds, and what moves them all together is no difference.
    noise = np.sqrt((values - values.mean(0)).var(axis=1, ddof=1).mean())
    spread = values.mean(1).std(ddof=1)
    said.append(
      f'The rank correlation (Spearman) between repeats is {agreement:.2f}: 1 if the order '
      f"decides, 0 if the seeds do. The orders' means deviate by {spread:.2g}; the repeats of an "
      f'order, beyond what all orders share, by {noise:.2g}, so a mean of {repeats} by '
      f'{noise / repeats**0.5:.2g}.'
    )
  said.append(study.spread_caption(rows[0]))
  every = [row for some in rows for row in some]
  shown = table if len(table) <= 10 else [*table[:5], *table[-5:]]
  report.publish(found.folder, __doc__, table, said, [picture], every, model.config, shown)


def random_orders(k: int, count: int) -> list[tuple[int, ...]]:
  """Distinct orders of k groups, drawn with seed 0; all of them where there are no more."""
  if math.factorial(k) <= count:
    return list(itertools.permutations(range(k)))
  rng, found = np.random.default_rng(0), {}
  while len(found) < count:
    found[tuple(rng.permutation(k).tolist())] = None
  return list(found)


def measure(found, model, orders, repeats) -> list[list[dict[str, str]]]:
  """The rows of each order, one a repeat; those that are there already are not measured."""
  mesh = sharding.mesh()
  together = mesh.size
  batch = max(model.config.sampling.batch // together, 1)
  walk = walker(model, mesh)
  seeds = study.disjoint_seed_sets(model.config.evaluation.seeds, repeats)
  rounds = list(itertools.product(range(0, len(orders), together), seeds))
  with tqdm.tqdm(total=len(orders) * repeats, unit=' cells', disable=None) as bar:
    for first, some in rounds:
      # Always the same orders side by side, so that a rerun repeats the very same arithmetic.
      configs = [
        model.with_sampling(some, order=order) for order in orders[first : first + together]
      ]
      if not all(model.key(config) in found.cells for config in configs):
        measured = side_by_side(model, walk, configs, batch, mesh)
        rows = [model.row(*pair) for pair in zip(configs, measured, strict=True)]
        found.cells.add(*(row for row in rows if row not in found.cells))
      bar.update(len(configs))
  return [
    [found.cells.get(model.key(model.with_sampling(some, order=order))) for some in seeds]
    for order in orders
  ]


def side_by_side(model, walk, configs, batch, mesh) -> list[Scores]:
  """The scores of several orders' images from the same seeds."""
  tables = [build.sampling_table(config, model.system) for config in configs]
  # As many always, so that one program serves the last round too.
  tables = np.stack([tables[i % len(tables)] for i in range(mesh.size)])
  collectors = [Collector() for _ in tables]
  seeds = parse_seeds(configs[0], 'evaluation.seeds')
  for some in np.split(seeds, range(batch, len(seeds), batch)):
    full = np.resize(some, batch)
    x = walk(tables, full.astype(np.uint32), build.sampling_labels(model.config, full))
    model.evaluator.collect(collectors, x, some)
  return [scores(c.summary(), model.evaluator.real) for c in collectors[: len(configs)]]


def walker(model, mesh):
  """walk(tables [devices, rows, k], seeds [n], labels [n]) -> [devices * n, *grid, c], compiled.

  Every device walks one order's table for all the seeds.
  """
  split, everywhere = sharding.batch_sharded(mesh), sharding.replicated(mesh)
  c, shape = model.config.sampling, model.config.data.shape

  @functools.partial(
    jax.jit,
    in_shardings=(everywhere, split, everywhere, everywhere),
    out_shardings=split,
  )
  def walk(params, tables, seeds, labels):
    predict = sampling.guided(functools.partial(model.system.predict, params), labels, c.guidance)
    z = sampling.latents(seeds, shape)
    x = sampling.sweep(predict, model.system.process, tables, z, c.solver)
    return x.reshape(-1, *shape)

  return functools.partial(walk, model.weights.params)


def rank_agreement(values: np.ndarray) -> float:
  """Spearman's correlation of the ranks in [orders, repeats], the mean over pairs of repeats."""
  pairs = itertools.combinations(values.T, 2)
  found = [stats.spearmanr(a, b).statistic for a, b in pairs]
  return float(np.mean(found)) if found else float('nan')


def on_its_way(model, order) -> np.ndarray:
  """Images on their way, [images, k + 1, *grid, c]: latents, and after each group's steps."""
  config = model.with_sampling(model.config.evaluation.seeds, order=order)
  table = build.sampling_table(config, model.system)
  seeds = np.arange(SHOWN, dtype=np.uint32)
  z = sampling.latents(seeds, config.data.shape)
  labels = build.sampling_labels(config, seeds)
  c = config.sampling
  predict = sampling.guided(
    functools.partial(model.system.predict, model.weights.params), labels, c.guidance
  )
  points = sampling.trajectory(predict, model.system.process, table, z, c.solver)
  # After the rows on which every group is all noise or all data.
  whole = np.flatnonzero(np.isin(table, (0, 1)).all(axis=1))
  return np.asarray(points)[whole].swapaxes(0, 1)


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
