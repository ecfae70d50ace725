"""What k groups cost and what they are worth: FLOPs, and bits per dimension of held-out data."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from configs import digits_context
from experiments import group_cost, held_out_likelihood
from experiments.lib import command
from experiments.lib.study import identity
from gdm_jax import build
from gdm_jax.runtime.errors import ConfigError
from tests.support import experiments

TINY = (
  *('--config.model.group_causal.width=16', '--config.model.group_causal.depth=2'),
  *('--groups=1,4', '--batches=1', '--steps=2'),
)


@pytest.fixture(scope='module')
def causal(tmp_path_factory):
  return experiments.trained(tmp_path_factory, 'digits_causal', *TINY[:2])


def test_costs_of_every_network_and_a_trained_model(causal, tmp_path, monkeypatch, capsys):
  def start():
    models = f'--models={causal}'
    experiments.start(
      group_cost, monkeypatch, 'digits_causal', tmp_path / 'run', *TINY, models, trained=False
    )
    return experiments.rows(tmp_path / 'run', 'group_cost')

  rows = start()
  assert [(r['network'], r['groups'], r['cache']) for r in rows] == [
    *[
      (n, k, c)
      for k in '14'
      for n, c in (('group_causal', 'True'), ('group_causal', 'False'), ('ddpmpp', 'False'))
    ],
    ('group_causal', '4', 'True'),
  ]
  flops = {(r['network'], r['cache'], r['groups']): float(r['flops']) for r in rows[:-1]}
  for way, ratio in {('ddpmpp', 'False'): 4, ('group_causal', 'False'): 8}.items():
    assert flops[*way, '4'] / flops[*way, '1'] == pytest.approx(ratio, rel=0.1)
  # Two steps of a quarter of the tokens each, and three of the quarters once more as context.
  cached = flops['group_causal', 'True', '4'] / flops['group_causal', 'True', '1']
  assert 1.1 < cached < 1.6
  assert float(rows[-1]['distance']) > 0
  monkeypatch.setattr(group_cost, 'cost', None)
  assert start() == rows
  experiments.check_report(tmp_path / 'run' / 'group_cost', 'k = 4 costs', 'FD (pixels)')


def test_costs_of_another_config_are_other_rows():
  config = digits_context.get_config()
  before = identity(config, *group_cost.COSTLY)
  assert identity(digits_context.get_config(), *group_cost.COSTLY) == before
  config.evaluation.seeds = '0-9'  # costs do not depend on it
  assert identity(config, *group_cost.COSTLY) == before
  for key, value in {'model.context_unet.channels': 64, 'sampling.solver': 'heun'}.items():
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict({key: value})
    assert identity(other, *group_cost.COSTLY) != before


def test_flops_of_a_context_network_are_counted_once_a_group():
  config = digits_context.get_config()
  config.model.context_unet.update(channels=64, denoiser_channels=8)
  config.model.context_unet.update(multipliers=(1,), denoiser_multipliers=(1,))
  system = build.system(config)

  def cached(steps):
    config.sampling.steps = (4 * steps,)
    table = np.asarray(build.sampling_table(config, system))
    return group_cost._cached_flops(config, system, table)

  two, three = map(cached, (2, 3))
  step = three - two  # of each group
  assert two - 2 * step > 4 * step


def test_bits_of_held_out_examples_along_orders(causal, tmp_path, monkeypatch, capsys):
  def start(*more):
    flags = f'--models={causal}', '--orders=2', '--examples=3', '--steps=1', *more
    split = '--config.likelihood.split=train[90%:]'
    experiments.start(held_out_likelihood, monkeypatch, 'digits_causal', tmp_path, *flags, split)
    return experiments.rows(tmp_path, 'held_out_likelihood')

  rows = start()
  assert len({row['order'] for row in rows}) == len(rows) == 2
  values = pd.read_csv(tmp_path / 'held_out_likelihood' / 'values.csv')
  for row, each in zip(rows, values['each'], strict=True):
    bits = np.array(each.split(), float) / (64 * math.log(2)) + math.log2(16 / 2)
    assert float(row['bits']) == pytest.approx(bits.mean(), abs=1e-4)
    assert float(row['error']) == pytest.approx(bits.std(ddof=1) / math.sqrt(3), abs=1e-4)
    assert (row['groups'], row['network']) == ('4', 'group_causal')
    assert row['how'] == 'rk4, 1 shrinking steps a group, 1 probe'
  others = start('--config.likelihood.seed=9')[2:]
  assert [row['how'] for row in others] == 2 * ['rk4, 1 shrinking steps a group, 1 probe, seed 9']
  assert others[0]['bits'] != rows[0]['bits']
  monkeypatch.setattr(held_out_likelihood, '_bits', None)
  assert start()[:2] == rows
  experiments.check_report(tmp_path / 'held_out_likelihood', 'train[90%:]', pictures=())


@pytest.mark.parametrize('text', ['1,x', '', '0', '-1', '1,,2', '1.5'])
def test_numbers_of_a_flag_must_be_positive(text):
  with pytest.raises(ConfigError, match=f'--groups={re.escape(text)}: must be numbers such as'):
    command.numbers('groups', text)
  assert command.numbers('groups', '16,4, 1') == [16, 4, 1]
