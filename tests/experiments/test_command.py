"""The flags of every experiment."""

import importlib
import inspect
import sys

import pytest

from experiments.lib import command
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
