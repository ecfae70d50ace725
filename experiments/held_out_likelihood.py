"""Bits per dimension of held-out data: by network, number of groups and order of generation.

  python -m gdm_jax.main --config=configs/digits_causal.py --workdir=runs/held_out \\
    --config.data.split=train[:90%]
  python -m experiments.held_out_likelihood --config=configs/digits_causal.py \\
    --models=runs/held_out --config.likelihood.split=train[90%:]

For every model of --models: -log P of --examples examples of likelihood.split along --orders random
orders of sampling.strategy, or along the one that it was trained on. It is that of the ODE, by
likelihood.solver with --steps steps a group, which shrink towards the data, and likelihood.probes.
All models see the same examples with the same noise. More steps show whether there are enough.
"""

import math
import pathlib
from typing import Annotated

import pandas as pd
from ml_collections import ConfigDict

from experiments import order_sweep
from experiments.lib import command
from experiments.lib.costs import Costs, Order
from experiments.lib.study import Model, Study, workdirs
from gdm_jax import build, likelihood

ADDED = ('checkpoint', 'parameters', 'strategy')
KEYS = ('model', 'network', 'groups', 'order', 'data', 'split', 'how', 'examples', *ADDED)
VALUES = ('bits', 'error')


def run(
  config: ConfigDict,
  workdir: pathlib.Path,
  *,
  models: str = '',
  orders: int = 3,
  examples: Annotated[int, 2] = 64,
  steps: int = 8,
):
  """Measures what results.csv lacks. Raises ConfigError."""
  study = Study('held_out_likelihood', workdir, KEYS, VALUES)
  rows = []
  for model in study.models(config, workdirs(models, workdir)):
    strategy, _ = build.sampling_order(model.config, model.system.strategies)
    costs = Costs(model, strategy, study.folder / 'values.csv', levels=1, steps=steps)
    own = costs.strategy.order
    for order in [own] if own else order_sweep.orders_to_test(costs.k, orders):
      row = study.cells.measure(
        _key(model, costs, order, examples),
        lambda m=model, c=costs, o=order: _bits(m, c, o, examples),
      )
      rows.append(row)
  rows = pd.DataFrame(rows)
  study.publish(__doc__, *summarise(rows), [], rows, model.config)


def _key(model: Model, costs: Costs, order: Order, examples: int) -> dict[str, str]:
  about = {name: costs.key[name] for name in ('data', 'split', *ADDED)}
  about |= {'model': model.name, 'network': model.config.model.name, 'groups': str(costs.k)}
  about |= {'how': costs.how('nll'), 'examples': str(examples)}
  return {**about, 'order': '-'.join(map(str, order))}


def _bits(model: Model, costs: Costs, order: Order, examples: int) -> dict[str, str]:
  """The mean over the examples and its standard error."""
  nats = -costs.of_orders([order], range(examples))[0]
  dims = math.prod(model.config.data.shape)
  bits = likelihood.bits_per_dim(nats, dims, costs.source.bin_width or 1)
  error = bits.std(ddof=1) / math.sqrt(examples)
  return {'bits': f'{bits.mean():.4f}', 'error': f'{error:.4f}'}


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """A line for each model, and what the numbers are."""
  rows = rows.astype({'bits': float, 'error': float})
  lines = [
    {
      **dict(zip(('model', 'network', 'k', 'how'), names, strict=True)),
      'bits/dim': f'{part["bits"].mean():.3f} ± {part["error"].mean():.3f}',
      'order by order': ' '.join(f'{bits:.3f}' for bits in part['bits']),
    }
    for names, part in rows.groupby(['model', 'network', 'groups', 'how'], sort=False)
  ]
  first = rows.iloc[0]
  finding = (
    f'{first["examples"]} examples of {first["data"]}, {first["split"]}, the same for all; means '
    'over the orders, with standard errors over the examples.'
  )
  return pd.DataFrame(lines), [finding]


if __name__ == '__main__':
  command.start(run, __doc__)
