"""Intervals of training from the groups' own losses: a probe of minutes.

  python -m experiments.find_intervals --config=configs/digits_frequency.py

Trains a model on --images images with equal intervals, in workdir/probe, measures the loss of every
group on --examples real examples of likelihood.split, and prints `strategies.*.cuts` that give each
group its share of the loss (`allocation.cuts_by_loss`), as a flag for the training proper. The
strategy is sampling.strategy; if it draws its orders, an interval is that of a place in the order.
`experiments.time_intervals --probe=IMAGES` compares a model that is trained on them.
"""

import pathlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from ml_collections import ConfigDict

from experiments.lib import command
from experiments.lib.costs import Costs
from experiments.lib.study import Model, train
from gdm_jax import allocation, build
from gdm_jax.runtime import distributed
from gdm_jax.runtime.errors import ConfigError

LEVELS = 8  # of signal in a group's interval, on which its loss is measured


def run(
  config: ConfigDict,
  workdir: pathlib.Path,
  arguments: Sequence[str],
  *,
  images: int = 20_000,
  examples: Annotated[int, 2] = 256,
):
  """Trains the probe unless it exists, and prints the flag. Raises ConfigError (`find`)."""
  name, _ = build.sampling_order(config, build.system(config).strategies)
  cuts = ','.join(map(str, find(config, workdir, arguments, images, examples)))
  if distributed.is_primary():
    print(f'--config.strategies.{name}.cuts={cuts}')


def find(
  config: ConfigDict,
  workdir: pathlib.Path,
  arguments: Sequence[str],
  images: int,
  examples: int = 256,
) -> tuple[float, ...]:
  """The interior boundaries in proportion to the losses of a probe in workdir/probe.

  arguments: of the command line, for training. Rounded to thousandths. Raises ConfigError for a
  strategy of one group, or one whose intervals overlap.
  """
  name, order = build.sampling_order(config, build.system(config).strategies)
  if len(order) < 2 or config.strategies[name].overlap or config.strategies[name].start:
    raise ConfigError(f'strategies.{name}: only of groups one after another intervals can be found')
  folder = workdir / 'probe'
  equal = f'--config.strategies.{name}.cuts=', f'--config.train.duration={images}'
  train(folder, [*arguments, *equal])
  costs = Costs(Model(config, folder, folder), name, folder / 'values.csv', LEVELS, steps=1)
  losses = costs.along('loss', order, range(min(examples, len(costs.source))))
  return tuple(np.round(allocation.cuts_by_loss(losses.mean(1).tolist()), 3).tolist())


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
