"""The table of strategies and its recommendation, and what a search over orders refuses."""

import pandas as pd
import pytest

from experiments import choose, order_search
from tests.support import runs
from tests.support.experiments import check_report, rows, start, trained

FLAGS = ('--examples=2', '--levels=2', '--repeats=2')


@pytest.fixture(scope='module')
def strategies(tmp_path_factory):
  mlp = '--config.model.name=mlp', *runs.TINY_MLP
  return trained(tmp_path_factory, 'digits_strategies', *mlp)


def test_every_strategy_has_its_order_its_cost_and_its_distance(strategies, monkeypatch, capsys):
  steps = '--config.sampling.steps=8'
  args = choose, monkeypatch, 'digits_strategies', strategies, *FLAGS, steps
  start(*args)
  measured = rows(strategies, 'choose')
  assert [(r['strategy'], r['seeds']) for r in measured] == [
    (name, seeds) for name in ('blocks', 'cascade', 'upward') for seeds in ('0-29', '30-59')
  ]
  by_name = {r['strategy']: r for r in measured}
  assert by_name['cascade']['order'] == '0-1'
  assert by_name['upward']['order'] == '3-2-1-0'
  assert [by_name[name]['found'] for name in by_name] == ['best by bound', 'trained', 'trained']
  assert [by_name[name]['grouping'] for name in by_name] == ['blocks 2,2', 'cascade 2', 'rows 4']
  assert [by_name[name]['groups'] for name in by_name] == ['4', '2', '4']
  for row in measured:
    assert float(row['seconds']) > 0
    assert float(row['bound']) > 0
    assert len(row['proposed_cuts'].split(',')) == int(row['groups']) - 1

  # The best order of the blocks is that of a search, on the same examples.
  values = pd.read_csv(strategies / 'choose' / 'values.csv', dtype=str)
  searched = values[(values['strategy'] == 'blocks') & (values['examples'] == '0-1')]
  assert searched['of'].value_counts().to_dict() == {'loss': 32, 'bound': 32}
  check_report(strategies / 'choose', 'Take ', 'seconds an image', 'the luck of training')
  page = (strategies / 'choose' / 'report.html').read_bytes()
  capsys.readouterr()
  start(*args)
  assert (strategies / 'choose' / 'report.html').read_bytes() == page


def test_an_order_that_training_fixed_is_not_searched(strategies, monkeypatch, capsys):
  with pytest.raises(SystemExit) as stop:
    start(
      order_search,
      monkeypatch,
      *('digits_strategies', strategies, '--config.sampling.strategy=upward'),
    )
  assert stop.value.code == 2
  assert 'strategies.upward: trained on the order (3, 2, 1, 0)' in capsys.readouterr().err


def measured(distances, seconds, bounds):
  """Rows of strategies with these distances of two sets of seeds."""
  lines = [
    {
      **dict.fromkeys(('grouping', 'steps', 'evaluations', 'proposed_cuts'), ''),
      **{'model': 'm', 'strategy': name, 'order': '0-1', 'found': 'trained', 'groups': '2'},
      **{'metric': 'FD', 'seeds': seeds, 'images': '30', 'kernel': '0'},
      **{'distance': str(value), 'seconds': str(seconds[name])},
      **{'bound': str(bounds[name]), 'bound_error': '0.01'},
    }
    for name, pair in distances.items()
    for seeds, value in zip(('0-29', '30-59'), pair, strict=True)
  ]
  return pd.DataFrame(lines)


def test_a_recommendation_says_what_cannot_be_told_apart():
  seconds, bounds = {'a': 3, 'b': 1, 'c': 2}, {'a': 1.0, 'b': 2.0, 'c': 0.5}
  table, (text, _) = choose.summarise(
    measured({'a': (1, 1.2), 'b': (1.2, 1.3), 'c': (5, 5.1)}, seconds, bounds)
  )
  assert list(table['strategy']) == ['a', 'b', 'c']
  assert text.startswith('Take a, order 0-1: it has the lowest FD. b cannot be told from it')
  assert 'of these b is the fastest' in text
  assert 'By the bound on -log p(x) c is the best' in text
  _, (text, _) = choose.summarise(measured({'b': (1.2, 1.3), 'c': (5, 5.1)}, seconds, bounds))
  assert 'Take b' in text
  assert 'All others are more than 2 standard errors of the seeds above it' in text
