"""Which of all k! orders is best: k 2^(k-1) costs, a shortest path, and a check by measurement.

  python -m gdm_jax.main --config=configs/digits_blockwise.py --config.data.split=train[:80%]
  python -m experiments.order_search --config=configs/digits_blockwise.py \\
    --config.likelihood.split=train[80%:]

Measures what every group j costs after every set A of others, for each of --costs: `loss`, the
squared error of Eq. 8 integrated over the group's interval; `bound`, the same weighted so that the
sum over an order bounds -log p(x) in nats; `nll`, the negative log-likelihood by the ODE; `error`,
the solver's squared error. The best order is then exact for these numbers (`gdm_jax.ordering`).
Costs are of --examples real examples of likelihood.split, the same for all pairs, so differences of
orders are paired; halves of the examples tell how well the cost agrees with itself.

The check: -log p(x) by the ODE along --orders random orders and along the best and the worst of
each cost, on --repeats sets of as many other examples, and with --distances the distance of samples
from as many sets of seeds (as order_sweep, whose rows it shares). Repeats that do not agree bound
the correlation that any prediction can reach. values.csv holds every example's values, cell by
cell: an interrupted search resumes.
"""

import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import pyplot as plt
from ml_collections import ConfigDict
from scipy import stats

from experiments import order_sweep
from experiments.lib import command, report
from experiments.lib.costs import COSTS, Costs, Order, Values
from experiments.lib.study import Model, Study
from gdm_jax import build, figures, ordering
from gdm_jax.runtime import distributed, files
from gdm_jax.runtime.errors import ConfigError

ALL = 40_320  # orders that are counted one by one; of more, as many random ones
ERRORS = 2.0  # standard errors that tell two orders apart
PRINTED = 5  # of the best and of the worst orders
UNITS = {'loss': 'squared error', 'bound': 'nats', 'nll': 'nats', 'error': 'squared error'}


def run(
  config: ConfigDict,
  workdir: pathlib.Path,
  *,
  costs: str = 'loss,bound',
  examples: Annotated[int, 2] = 64,
  levels: int = 8,
  steps: int = 4,
  orders: Annotated[int, 2] = 50,
  repeats: int = 2,
  distances: int = 0,
):
  """Searches and checks. Raises ConfigError for a strategy trained on one order."""
  names = costs.split(',')
  if unknown := [name for name in names if name not in COSTS]:
    raise ConfigError(f'--costs={costs}: {unknown[0]!r} is none of {", ".join(COSTS)}')
  model = Model(config, workdir, workdir)
  measured = costs_of(model, workdir / 'order_search' / 'values.csv', levels, steps)
  if measured.strategy.order:
    name = measured.key['strategy']
    raise ConfigError(f'strategies.{name}: trained on the order {measured.strategy.order}')

  # Predict, choose the orders to measure, and measure them on other examples.
  numbers = range(examples)
  values = {name: measured.of_pairs(name, numbers) for name in names}
  random = order_sweep.orders_to_test(measured.k, orders)
  chosen = dict.fromkeys(random, True)
  for of in values.values():
    for search in (ordering.best_order, ordering.worst_order):
      chosen.setdefault(search(of.mean(2), measured.k)[0], False)
  rows = pd.DataFrame({'order': ['-'.join(map(str, order)) for order in chosen]})
  rows['random'] = [str(flag) for flag in chosen.values()]
  for name in names:
    rows = rows.assign(**predictions(name, values[name], list(chosen)))
  sets = [range((i + 1) * examples, (i + 2) * examples) for i in range(repeats)]
  along = [measured.of_orders(list(chosen), part) for part in sets]
  rows = rows.assign(**measurements(along, list(chosen.values())))
  if distances:
    rows = rows.assign(**_distances(model, workdir, list(chosen), distances))
  settings = {**measured.key, 'examples': examples}
  settings |= {f'{of}_how': measured.how(of) for of in (*names, 'measured')}
  write(workdir / 'order_search', rows.assign(**settings), model)


def costs_of(model: Model, file: pathlib.Path, levels: int, steps: int) -> Costs:
  """The costs of `sampling.strategy`."""
  strategy, _ = build.sampling_order(model.config, model.system.strategies)
  return Costs(model, strategy, file, levels, steps)


def predictions(name: str, values: Values, orders: Sequence[Order]) -> dict[str, object]:
  """Columns of a cost: of every order its total, those of halves of the examples, and its lead.

  The lead is over the best order of all, with its standard error; the mean over all orders, and how
  many of how many cannot be told from the best, are the same in every row.
  """
  k, places = values.shape[1], np.array(orders)
  best, total = ordering.best_order(values.mean(2), k)
  totals = ordering.totals(values, places)
  lead, error = ordering.differences(values, places, best)
  alike, counted = alike_orders(values, best)
  columns = {
    name: totals.mean(1),
    'half_0': totals[:, ::2].mean(1),
    'half_1': totals[:, 1::2].mean(1),
    'above_best': lead,
    'above_best_error': error,
    'least': total,
    'mean_of_all': ordering.mean_cost(values.mean(2), k),
  }
  texts = {
    key if key == name else f'{name}_{key}': [f'{v:.6g}' for v in np.broadcast_to(of, len(orders))]
    for key, of in columns.items()
  }
  return {**texts, f'{name}_alike': str(alike), f'{name}_counted': str(counted)}


def alike_orders(values: Values, best: Order) -> tuple[int, int]:
  """How many orders cannot be told from the best, of how many: all, or as many random ones."""
  k = values.shape[1]
  if math.factorial(k) <= ALL:
    return ordering.count_alike(values, best, ERRORS), math.factorial(k)
  rng, count = np.random.default_rng(0), 0
  for _ in range(ALL // 1008):
    part = rng.permuted(np.tile(np.arange(k), (1008, 1)), axis=1)
    lead, error = ordering.differences(values, part, best)
    count += int(np.sum(np.abs(lead) <= ERRORS * error))
  return count, ALL


def measurements(
  along: Sequence[Float[np.ndarray, 'm n']], random: Sequence[bool]
) -> dict[str, list[str]]:
  """Columns of -log p(x) along orders, in nats: each repeat's mean, and the mean of all.

  `above_mean` is how much that is above the mean of the random orders, example by example, with
  its standard error.
  """
  each = np.concatenate(along, axis=1)
  lead = each - each[np.array(random)].mean(0)
  columns = {f'measured_{i}': part.mean(1) for i, part in enumerate(along)}
  columns |= {
    'measured': each.mean(1),
    'above_mean': lead.mean(1),
    'above_mean_error': lead.std(axis=1, ddof=1) / math.sqrt(each.shape[1]),
  }
  return {key: [f'{value:.6g}' for value in of] for key, of in columns.items()}


def _distances(model, workdir, orders, repeats):
  """Columns of the distances of samples along orders: each set's, and their mean."""
  study = Study('order_sweep', workdir, judge=model.config.evaluation.features)
  # The model's own folder has the features that the sweep uses.
  swept = Model(model.config, workdir, study.folder)
  table = order_sweep.measure(study, swept, orders, repeats)
  wide = table.astype({'distance': float}).pivot(index='order', columns='seeds', values='distance')
  wide = wide.loc[table['order'].unique(), table['seeds'].unique()]
  columns = {f'distance_{i}': wide.iloc[:, i] for i in range(repeats)}
  columns['distance'] = wide.mean(axis=1)
  texts = {key: [f'{value:.6g}' for value in of] for key, of in columns.items()}
  return {**texts, 'metric': table['metric'].iloc[0]}


def write(folder: pathlib.Path, rows: pd.DataFrame, model: Model):
  """Writes results.csv, figure.png and report.html."""
  if distributed.is_primary():
    with files.atomic_write(folder / 'results.csv') as f:
      f.write(rows.to_csv(index=False, lineterminator='\n').encode())
  rows = rows.astype(str)
  draw(folder / 'figure.png', rows)
  table, findings = summarise(rows)
  pictures = [folder / 'figure.png']
  report.publish(folder, __doc__, table, findings, pictures, rows, model.config, PRINTED)


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table, the order that was measured best first, and the findings."""
  names, k = costs_in(rows), rows['order'].iloc[0].count('-') + 1
  rows = rows.iloc[np.argsort(rows['measured'].astype(float), kind='stable')]
  table = pd.DataFrame({'order': rows['order']})
  for name in names:
    lead = zip(rows[f'{name}_above_best'], rows[f'{name}_above_best_error'], strict=True)
    table[f'{name} above the best'] = [f'{float(a):.3g} ± {float(b):.2g}' for a, b in lead]
  table['measured, nats'] = [f'{float(value):.4f}' for value in rows['measured']]
  table['repeats'] = _texts(rows, 'measured')
  if 'distance' in rows:
    table[rows['metric'].iloc[0]] = [f'{float(value):.4g}' for value in rows['distance']]
    table['of'] = _texts(rows, 'distance')
  first = rows.iloc[0]
  findings = [
    f'{k} groups, {math.factorial(k):,} orders, {k * 2 ** (k - 1):,} costs, of '
    f'{first["examples"]} examples of {first["data"]}, {first["split"]}.',
    *(_predicted(rows, name) for name in names),
    *(_compared(rows, names, what) for what in ('measured', 'distance') if what in rows),
    *(_extremes(rows, name) for name in names),
  ]
  return table, findings


def costs_in(rows: pd.DataFrame) -> list[str]:
  """The costs that rows have."""
  return [name for name in COSTS if name in rows]


def _predicted(rows, name):
  """The best, the worst and the mean order of a cost, as a sentence."""
  totals, first = rows[name].astype(float), rows.iloc[0]
  best, worst = rows['order'].iloc[totals.argmin()], rows['order'].iloc[totals.argmax()]
  alike, counted = int(first[f'{name}_alike']), int(first[f'{name}_counted'])
  drawn = ' random' * (counted < math.factorial(best.count('-') + 1))
  return (
    f'{name} ({first[f"{name}_how"]}): the best order is {best} with {totals.min():.5g} '
    f'({UNITS[name]}), the worst {worst} with {totals.max():.5g}; the mean of all orders is '
    f'{float(first[f"{name}_mean_of_all"]):.5g}. {alike:,} of {counted:,}{drawn} orders cannot be '
    f'told from the best: their paired differences are below {ERRORS:g} standard errors.'
  )


def _compared(rows, names, what):
  """The rank correlation of every cost with a measurement, beside what repeats allow."""
  random = rows[rows['random'] == 'True']
  repeats, measured = _repeats(random, what), random[what].astype(float)
  agreement = order_sweep.rank_agreement(repeats)
  count = repeats.shape[1]
  title = '-log p(x)' if what == 'measured' else rows['metric'].iloc[0]
  parts = []
  for name in names:
    correlation = stats.spearmanr(random[name].astype(float), measured).statistic
    halves = [random[f'{name}_half_{i}'].astype(float) for i in (0, 1)]
    own = stats.spearmanr(*halves).statistic
    parts.append(f'{correlation:.2f} for {name} (whose halves agree by {own:.2f})')
  text = (
    f'{title} of {len(random)} random orders, measured on examples or seeds that no cost was: rank '
    f'correlation (Spearman) with the prediction {", ".join(parts)}; ± '
    f'{1 / math.sqrt(max(len(random) - 1, 1)):.2f} if there is none.'
  )
  if count < 2:
    return f'{text} One repeat tells no ceiling.'
  limit = ceiling(agreement, count)
  return (
    f'{text} {count} repeats agree by {agreement:.2f}, so that no prediction can be expected to '
    f'exceed {limit:.2f}.'
  )


def ceiling(agreement: float, repeats: int) -> float:
  """The largest correlation that a perfect prediction has with the mean of noisy repeats.

  agreement: the correlation of two repeats. It is the square root of the reliability of the mean,
  which the formula of Spearman and Brown gives.
  """
  agreement = max(agreement, 0.0)
  return math.sqrt(repeats * agreement / (1 + (repeats - 1) * agreement))


def _extremes(rows, name):
  """What was measured of the best and the worst order of a cost, and of the random ones."""
  totals, measured = rows[name].astype(float), rows['measured'].astype(float)
  random = measured[rows['random'] == 'True']
  parts = []
  for kind, place in (('best', totals.argmin()), ('worst', totals.argmax())):
    row = rows.iloc[place]
    parts.append(
      f'{measured.iloc[place]:.4f} in the {kind} order by {name} '
      f'({float(row["above_mean"]):+.3f} ± {float(row["above_mean_error"]):.2g} from their mean)'
    )
  better = float((random < measured.iloc[totals.argmin()]).mean())
  return (
    f'Measured -log p(x), nats: random orders from {random.min():.4f} to {random.max():.4f}, their '
    f'mean {random.mean():.4f} and median {random.median():.4f}; {", ".join(parts)}. '
    f'{better:.0%} of the random orders are better than the best by {name}.'
  )


def _repeats(rows, what):
  """The repeats of a measurement, [orders, repeats]."""
  columns = [f'{what}_{i}' for i in itertools.takewhile(lambda i: f'{what}_{i}' in rows, range(99))]
  return rows[columns].astype(float).to_numpy()


def _texts(rows, what):
  return [' '.join(f'{value:.5g}' for value in line) for line in _repeats(rows, what)]


def draw(file: pathlib.Path, rows: pd.DataFrame):
  """Measured against predicted, a panel for each cost; the random orders and the extremes."""
  names = costs_in(rows)
  measures = {'measured': 'measured -log p(x), nats'}
  if 'distance' in rows:
    measures['distance'] = rows['metric'].iloc[0]
  figure, axes = plt.subplots(
    *(len(measures), len(names)),
    **{'figsize': (4.2 * len(names), 3.6 * len(measures)), 'dpi': 120},
    **{'layout': 'constrained', 'squeeze': False},
  )
  random = rows['random'] == 'True'
  for line, (what, title) in zip(axes, measures.items(), strict=True):
    for axis, name in zip(line, names, strict=True):
      x, y = rows[name].astype(float), rows[what].astype(float)
      axis.plot(x[random], y[random], 'o', ms=3, label='random orders')
      for label, place in (('best', x.argmin()), ('worst', x.argmax())):
        axis.plot(x.iloc[place], y.iloc[place], 's', ms=6, label=f'{label} by {name}')
      axis.set(xlabel=f'{name} predicted, {UNITS[name]}', ylabel=title)
      axis.grid(alpha=0.3)
      axis.legend()
  figures.finish(figure, file)


if __name__ == '__main__':
  command.start(run, __doc__)
