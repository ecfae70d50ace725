"""Intervals of training that a probe finds."""

import numpy as np
import pandas as pd
import pytest

from experiments import find_intervals
from tests.support import runs
from tests.support.experiments import start


def test_a_probe_finds_intervals(tmp_path, monkeypatch, capsys):
  mlp = '--config.model.name=mlp', *runs.TINY_MLP, f'--images={2 * runs.BATCH}', '--examples=4'
  start(find_intervals, monkeypatch, 'digits_frequency', tmp_path, *mlp, trained=False)
  flag = capsys.readouterr().out.splitlines()[-1]
  key, _, cuts = flag.partition('=')
  assert key == '--config.strategies.main.cuts'
  values = pd.read_csv(tmp_path / 'probe' / 'values.csv')
  losses = values[values['of'] == 'loss'].set_index('cell')['mean']
  shares = losses[['>0', '0>1', '0-1>2', '0-1-2>3']].to_numpy()[::-1] / losses.sum()
  np.testing.assert_allclose(
    [float(cut) for cut in cuts.split(',')], shares.cumsum()[:3], atol=1e-3
  )


def test_intervals_are_found_of_groups_one_after_another(tmp_path, monkeypatch, capsys):
  for flag in ('overlap=0.5', 'grouping=whole'):
    flags = [f'--config.strategies.main.{flag}', '--config.strategies.main.groups=']
    with pytest.raises(SystemExit) as stop:
      start(find_intervals, monkeypatch, 'default', tmp_path, *flags, trained=False)
    assert stop.value.code == 2
    assert 'strategies.main: only of groups one after another' in capsys.readouterr().err
