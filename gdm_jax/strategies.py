"""From `config.strategies` to groupings and strategies; errors name their config key."""

import numpy as np
from ml_collections import ConfigDict

from gdm_jax import grouping, schedule
from gdm_jax.basis import Basis
from gdm_jax.conditioning import has_conditionals, is_groupwise
from gdm_jax.config import blaming
from gdm_jax.data import label_map
from gdm_jax.grouping import GROUPINGS, Grouping
from gdm_jax.models import NETWORKS
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.schedule import Strategy


def strategies_of(config: ConfigDict, basis: Basis) -> tuple[Grouping, dict[str, Strategy]]:
  """The common refinement of a config's groupings, and its strategies over that by name.

  Raises ConfigError.
  """
  if not config.strategies:
    raise ConfigError('strategies is empty; a run needs at least one')
  groupings = {
    name: _grouping(f'strategies.{name}', s, basis, config.data.shape[-1])
    for name, s in config.strategies.items()
  }
  refined, indices = grouping.refine(*groupings.values())
  strategies = {
    name: _strategy(f'strategies.{name}', config.strategies[name], index)
    for name, index in zip(groupings, indices, strict=True)
  }
  for name, strategy in strategies.items():
    if config.train.times == 'discrete' and strategy.overlaps:
      raise ConfigError(
        f"train.times = 'discrete': strategies.{name} has intervals that overlap, and a group has "
        'one step only if it moves alone; must be continuous'
      )
  _check_moving_together(config, strategies)
  return refined, strategies


def _grouping(key, c, basis, channels) -> Grouping:
  if c.grouping.startswith('file:'):
    with blaming(f'{key}.grouping', c.grouping):
      labels = label_map.read(c.grouping.removeprefix('file:'))
      return grouping.from_labels(labels, basis.shape, channels)
  if c.grouping not in GROUPINGS:
    known = ', '.join([*GROUPINGS, 'file:PATH'])
    raise ConfigError(f'{key}.grouping = {c.grouping!r}: there are {known}')
  try:
    with blaming(f'{key}.grouping = {c.grouping!r}, {key}.groups', c.groups):
      made = GROUPINGS[c.grouping](basis, *c.groups)
  except TypeError:
    raise ConfigError(f'{key}.groups = {c.groups} does not fit grouping {c.grouping!r}') from None
  if made.by_channel and made.labels.shape[-1] != channels:
    raise ConfigError(
      f'{key}.grouping = {c.grouping!r}, {key}.groups = {c.groups}: the data have {channels} '
      f'channel{"s" * (channels > 1)} (data.shape)'
    )
  return made


def _strategy(key, c, indices) -> Strategy:
  if c.start or c.end:
    return _strategy_of_intervals(key, c, indices)
  strategy = Strategy(c.order or None, c.cuts or None, indices, c.overlap)
  k = strategy.num_groups
  if c.order and len(c.order) != k:
    raise ConfigError(f'{key}.order = {c.order}: the grouping has {k} groups')
  with blaming(f'{key}.order', c.order):
    schedule.sequential(c.order or range(k))
  with blaming(f'{key}.cuts', c.cuts):
    schedule.sequential(range(k), strategy.cuts)
  with blaming(f'{key}.overlap', c.overlap):
    schedule.overlapping(range(k), strategy.overlap)
  return strategy


def _strategy_of_intervals(key, c, indices) -> Strategy:
  """The strategy of `start` and `end`, which say the order too."""
  given = f'{key}.start = {c.start}, {key}.end = {c.end}'
  for name in ('order', 'cuts', 'overlap'):
    if c[name]:
      raise ConfigError(f'{given}: they say everything; {key}.{name} = {c[name]} must be left out')
  k = int(np.max(indices)) + 1
  if len(c.start) != k or len(c.end) != k:
    raise ConfigError(f'{given}: must be {k} numbers each, one for each group')
  try:
    intervals = schedule.explicit(c.start, c.end)
  except ValueError as error:
    raise ConfigError(f'{given}: {error}') from None
  return Strategy(schedule.order_of(intervals), None, indices, intervals=intervals)


def _check_moving_together(config, strategies):
  """Raises ConfigError if groups move together and the network could not see them together."""
  network = NETWORKS.get(config.model.name)
  if not is_groupwise(network) or has_conditionals(network):
    return
  for name, strategy in strategies.items():
    k, cells = strategy.num_groups, len(strategy.indices)
    # Groups that share their whole interval do not count as overlapping elsewhere.
    shared = len(np.unique(strategy.schedule(range(k)).start)) < k
    overlap = strategy.overlaps or shared
    why = 'has intervals that overlap' if overlap else f'has {k} groups in {cells} parts'
    if overlap or k < cells:
      raise ConfigError(
        f'model.name = {config.model.name!r} sees one part of the common refinement that moves at '
        f'a time, and strategies.{name} {why}; group_causal and ddpmpp take it'
      )
