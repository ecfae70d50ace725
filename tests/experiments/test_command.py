"""The command line of experiments: counts, models, and what ends in one line."""

import importlib
import inspect
import math
import sys

import pandas as pd
import pytest

from experiments import grouping_strategies, order_sweep
from experiments.lib import command, study
from tests.support import runs

FOLDERS = {'experiments': '*.py', 'experiments.benchmarks': 'benchmarks/*.py'}
MODULES = [
  f'{package}.{file.stem}'
  for package, pattern in FOLDERS.items()
  for file in sorted((runs.ROOT / 'experiments').glob(pattern))
  if 'command.start(run' in file.read_text()
]


@pytest.mark.parametrize('name', MODULES)
def test_counts_that_are_too_small_are_refused_before_any_work(name, monkeypatch, capsys):
  module = importlib.import_module(name)
  counts = {
    flag: parameter
    for flag, parameter in inspect.signature(module.run).parameters.items()
    if isinstance(parameter.default, int)
  }
  for flag, parameter in counts.items():
    least = command.least(parameter)
    assert parameter.default >= least
    monkeypatch.setattr(sys, 'argv', ['', f'--{flag}={least - 1}'])
    with pytest.raises(SystemExit) as stop:
      command.start(module.run, module.__doc__)
    assert stop.value.code == 2
    assert f'--{flag}={least - 1} must be at least {least}' in capsys.readouterr().err


def test_experiments_were_found():
  assert len(MODULES) > 25


def stopped(module, monkeypatch, capsys, *flags):
  """The exit code of a command, and what it says."""
  monkeypatch.setattr(sys, 'argv', ['', '--config.machine.cpu_devices=1', *flags])
  with pytest.raises(SystemExit) as stop:
    command.start(module.run, module.__doc__)
  return stop.value.code, capsys.readouterr().err.splitlines()[-1]


def test_workdirs_are_not_the_model_of_the_command(monkeypatch, capsys, tmp_path):
  flags = f'--models={tmp_path}/a,{tmp_path}/b', f'--workdir={tmp_path}/run'
  code, error = stopped(grouping_strategies, monkeypatch, capsys, '--model=digits', *flags)
  assert code == 2
  assert f'{tmp_path}/a holds no checkpoint' in error


def test_a_workdir_that_is_a_file_is_named(monkeypatch, capsys, tmp_path):
  (tmp_path / 'file').touch()
  flags = '--model=digits', f'--workdir={tmp_path}/file'
  code, error = stopped(grouping_strategies, monkeypatch, capsys, *flags)
  assert code in (1, 2)
  assert f'{tmp_path}/file' in error
  assert error.startswith('error: ')


def test_a_number_that_is_given_twice_counts_once():
  assert command.numbers('budgets', '8,4,8') == [8, 4]


def test_rows_of_before_a_column_have_no_number_there():
  rows = pd.DataFrame({'model': 'a', 'distance': ['1', '2'], 'kernel': '', 'line': 'x'})
  found = study.statistics(rows, 'line').loc['x']
  assert found['mean'] == 1.5
  assert 'nan' in found['kernel']


def test_a_single_order_is_not_ranked():
  rows = {'order': '0-1', 'seeds': ['0-9', '10-19'], 'distance': ['1', '2'], 'kernel': ['3', '4']}
  rows = pd.DataFrame({'model': 'a', 'metric': 'FD', 'images': '10', **rows})
  _, findings = order_sweep.summarise(rows)
  assert not any('nan' in finding or 'rank' in finding for finding in findings)


def test_the_noise_of_repeats_is_that_of_independent_orders():
  """Two orders whose repeats share a shift: what is left has the variance of their difference."""
  values = {'0-1': (1.0, 2.0), '1-0': (1.0, 4.0)}
  rows = [
    {'order': order, 'seeds': str(i), 'distance': value, 'kernel': 0.0}
    for order, repeats in values.items()
    for i, value in enumerate(repeats)
  ]
  rows = pd.DataFrame(rows).assign(model='a', metric='FD', images='10')
  _, findings = order_sweep.summarise(rows)
  # Of independent noise with variance v the difference of differences, here 2, has 4 v.
  assert f'beyond what all orders share, by {math.sqrt(2**2 / 4):.2g},' in findings[1]
