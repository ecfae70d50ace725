"""Samples judged by a rule: even pixels and digits that add up to nine, every strategy once."""

import numpy as np
import pandas as pd
import pytest

from experiments import digit_pairs, even_pixels
from experiments.lib import shares
from gdm_jax.data import sources
from tests.support import experiments as support

MODEL = '--config.checkpoint.keep=1'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  return support.trained(tmp_path_factory, 'even_pixels', MODEL)


def test_every_strategy_is_measured_once(trained, monkeypatch, capsys):
  flags = '--budgets=64', '--repeats=2', '--config.evaluation.seeds=0-19'
  support.start(even_pixels, monkeypatch, 'even_pixels', trained, *flags)
  rows = support.rows(trained, 'even_pixels')
  assert [row['strategy'] for row in rows[::2]] == [
    *sorted(('whole', 'rows', 'columns', 'blocks', 'cascade', 'pixels'))
  ]
  assert [row['seeds'] for row in rows[:2]] == ['0-19', '20-39']
  assert {(row['steps'], row['images'], row['pixels']) for row in rows} == {('64', '20', '64')}
  assert '9.9% would be even' in capsys.readouterr().out
  support.check_report(
    trained / 'even_pixels', 'Spatial Reasoning Models', pictures=('figure', 'ddpmpp')
  )
  monkeypatch.setattr(shares, '_values', lambda *args: pytest.fail('measured again'))
  support.start(even_pixels, monkeypatch, 'even_pixels', trained, *flags)
  assert support.rows(trained, 'even_pixels') == rows


def test_a_model_of_other_data_is_refused(trained, monkeypatch, capsys):
  with pytest.raises(SystemExit) as stopped:
    support.start(even_pixels, monkeypatch, 'even_pixels', trained, '--config.data.name=digits')
  assert stopped.value.code == 2
  assert 'is a model of digits, not of even_pixels' in capsys.readouterr().err


def test_pairs_are_judged_by_their_digits():
  real = sources.load('digit_pairs', 'train', (8, 16, 1)).x[:100]
  others = np.concatenate([real[:, :, :8], np.roll(real[:, :, 8:], 1, axis=0)], axis=2)
  right, exchanged = (digit_pairs.scores(x) for x in (real, others))
  assert right['right'] == 100
  assert exchanged['right'] < 30
  assert 0.98 < right['accuracy'] < 1


def test_shares_have_standard_errors_over_all_seeds():
  common = {'network': 'ddpmpp', 'pixels': '64', 'steps': '64', 'images': '50'}
  whole = {**common, 'solver': 'euler', 'order': '0'}
  rows = {**common, 'solver': 'midpoint', 'steps': '32', 'order': '0-1'}
  rows = pd.DataFrame(
    [
      {**rows, 'strategy': 'rows', 'even': '50'},
      {**whole, 'strategy': 'whole', 'even': '10'},
      {**whole, 'strategy': 'whole', 'even': '15'},
      {**rows, 'strategy': 'rows', 'even': '50'},
    ]
  )
  table, findings = even_pixels.summarise(rows)
  assert table.to_dict('records') == [
    {
      'network, evaluations': 'ddpmpp, 64',
      'whole': '25.0 ± 4.3%',
      'rows': '100.0 ± 0.0%',
    }
  ]
  assert findings[0] == 'ddpmpp, 64 evaluations, from most to least often even: rows, whole.'
