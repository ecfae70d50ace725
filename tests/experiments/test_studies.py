"""The experiments that end in results.csv, figure.png and report.html, on hardly trained models."""

import csv
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict

from experiments import (
  find_intervals,
  group_count,
  grouping_strategies,
  loss_weighting,
  order_sweep,
  paper,
  time_intervals,
)
from experiments.lib import command, report, study
from gdm_jax import build, main
from gdm_jax.evaluation.evaluator import KEYS, VALUES
from gdm_jax.runtime import memory
from tests.support import runs
from tests.support.experiments import FAST, check_report, rows, start, trained


@pytest.fixture(scope='module')
def blockwise(tmp_path_factory):
  return trained(tmp_path_factory, 'digits', '--config.strategies.main.groups=1,3')


@pytest.fixture(scope='module')
def groupings(tmp_path_factory):
  return trained(tmp_path_factory, 'digits_groupings')


def test_sweep_measures_every_order_once_and_compiles_once(blockwise, monkeypatch, capsys):
  jax.clear_caches()
  walkers = []
  make = order_sweep.sweep_program

  def remember(*args):
    walkers.append(make(*args))
    return walkers[-1]

  monkeypatch.setattr(order_sweep, 'sweep_program', remember)
  flags = '--orders=6', '--repeats=2'
  start(order_sweep, monkeypatch, 'digits', blockwise, *flags)
  assert walkers[0]._cache_size() == 1

  measured = rows(blockwise, 'order_sweep')
  orders = ['-'.join(map(str, order)) for order in itertools.permutations(range(3))]
  assert [(r['order'], r['seeds']) for r in measured] == [
    (order, seeds) for order in orders for seeds in ('0-29', '30-59')
  ]
  assert set(measured[0]) == {'model', *KEYS, *VALUES}
  assert {r['metric'] for r in measured} == {'FD (pixels)'}
  assert len({r['distance'] for r in measured}) == len(measured)
  check_report(blockwise / 'order_sweep', 'Spearman', 'FD (pixels)', 'How to repeat it', orders[0])
  printed = capsys.readouterr().out
  assert 'rank correlation' in printed

  # The same rows as the mode writes for that order and those seeds.
  single = '--config.sampling.order=2,0,1', '--config.evaluation.seeds=30-59'
  fast = [f'--config.evaluation.{key}' for key in FAST]
  config = f'--config={runs.ROOT}/configs/digits.py'
  argv = ['', config, f'--workdir={blockwise}', *runs.TINY, *fast, *single, '--mode=evaluate']
  assert main.main(argv) == 0
  with (blockwise / 'evaluation.csv').open(newline='') as f:
    (row,) = csv.DictReader(f)
  (swept,) = (r for r in measured if r['order'] == '2-0-1' and r['seeds'] == '30-59')
  for key in {*KEYS, *VALUES} - {'kernel', 'distance'}:
    assert row[key] == swept[key], key
  # Walked in other batches, so equal to float32's rounding.
  np.testing.assert_allclose(float(row['distance']), float(swept['distance']), rtol=1e-3)


class Stopped(Exception):
  """In the place of a kill."""


def test_a_sweep_killed_half_way_ends_with_the_same_rows(blockwise, tmp_path, monkeypatch):
  flags = '--orders=6', '--repeats=2'
  start(order_sweep, monkeypatch, 'digits', blockwise, *flags)
  file = blockwise / 'order_sweep' / 'results.csv'
  unbroken = file.read_bytes()

  file.unlink()
  made = order_sweep.scores
  calls = iter(range(100))

  def killed(*args):
    if next(calls) == 5:
      raise Stopped
    return made(*args)

  monkeypatch.setattr(order_sweep, 'scores', killed)
  with pytest.raises(Stopped):
    start(order_sweep, monkeypatch, 'digits', blockwise, *flags)
  half = file.read_bytes()
  assert half != unbroken
  assert unbroken.startswith(half)
  file.write_bytes(half + b'run,2,main,')  # a line that the kill cut short

  monkeypatch.setattr(order_sweep, 'scores', made)
  start(order_sweep, monkeypatch, 'digits', blockwise, *flags)
  assert file.read_bytes() == unbroken


def test_eight_devices_sweep_eight_orders_side_by_side(blockwise, monkeypatch):
  start(order_sweep, monkeypatch, 'digits', blockwise, '--orders=6', '--repeats=1')
  argv = [
    *('-m', 'experiments.order_sweep', f'--config={runs.ROOT}/configs/digits.py'),
    *(f'--workdir={blockwise}', *runs.TINY, '--orders=6', '--repeats=1'),
    *(f'--config.evaluation.{key}' for key in FAST),
  ]
  file = blockwise / 'order_sweep' / 'results.csv'
  one = {(r['order'], r['seeds']): r for r in rows(blockwise, 'order_sweep')}
  file.unlink()
  runs.python(*argv, devices=8)
  measured = rows(blockwise, 'order_sweep')
  assert len(measured) == 6
  for row in measured:
    alone = one[row['order'], row['seeds']]
    np.testing.assert_allclose(float(row['distance']), float(alone['distance']), rtol=1e-3)


def test_more_orders_side_by_side_give_the_same_rows(blockwise, monkeypatch):
  flags = '--orders=6', '--repeats=1'
  file = blockwise / 'order_sweep' / 'results.csv'
  file.unlink(missing_ok=True)
  start(order_sweep, monkeypatch, 'digits', blockwise, *flags)
  one = rows(blockwise, 'order_sweep')
  file.unlink()
  start(order_sweep, monkeypatch, 'digits', blockwise, *flags, '--at_once=4')
  for row, alone in zip(rows(blockwise, 'order_sweep'), one, strict=True):
    assert row['order'] == alone['order']
    np.testing.assert_allclose(float(row['distance']), float(alone['distance']), rtol=1e-3)


def test_as_many_orders_as_fit_into_the_memory_of_a_device(blockwise, monkeypatch):
  config = main.parse(
    ['', f'--config={runs.ROOT}/configs/digits.py', f'--workdir={blockwise}', *runs.TINY]
  ).config
  model = study.Model(config, blockwise, blockwise)
  walk, (device,) = order_sweep.sweep_program(model, model.mesh), model.mesh.devices.flat
  assert order_sweep.orders_that_fit(model, walk, model.mesh, 8, 6) == 1  # a CPU
  table = build.sampling_table(model.config, model.system)
  arguments = jnp.asarray(table)[None], jnp.zeros(8, np.uint32), jnp.zeros(8, np.int32)
  one = walk.lower(model.checkpoint.params, *arguments).compile()
  plan = one.memory_analysis()
  each = plan.temp_size_in_bytes + plan.output_size_in_bytes
  for limit, expected in ((0, 1), (2.5 * each, 2), (1e15, 6)):
    monkeypatch.setattr(memory, 'capacity', lambda _, n=limit: int(n / memory.SHARE) + 8)
    assert memory.how_many_fit(one, device, 6) == expected


def test_a_strategy_of_one_order_cannot_be_swept(groupings, monkeypatch, capsys):
  with pytest.raises(SystemExit) as stop:
    start(order_sweep, monkeypatch, 'digits_groupings', groupings)
  assert stop.value.code == 2
  assert 'trained on the order' in capsys.readouterr().err


def test_random_orders_are_distinct_and_repeatable():
  orders = order_sweep.orders_to_test(9, 100)
  assert len(set(orders)) == 100
  assert all(sorted(order) == list(range(9)) for order in orders)
  assert orders == order_sweep.orders_to_test(9, 100)
  assert orders[:10] == order_sweep.orders_to_test(9, 10)  # so that a sweep can be lengthened
  assert len(order_sweep.orders_to_test(3, 100)) == 6


def test_rank_agreement_tells_order_from_noise():
  rng = np.random.default_rng(0)
  order = rng.standard_normal((100, 1))
  noise = rng.standard_normal((100, 3))
  assert order_sweep.rank_agreement(order + 0.01 * noise) > 0.99
  assert abs(order_sweep.rank_agreement(noise)) < 0.2
  assert order_sweep.rank_agreement(order * [1, -1]) == pytest.approx(-1)


def test_repeats_take_seeds_that_no_other_takes():
  assert study.disjoint_seed_sets('0-99', 3) == ['0-99', '100-199', '200-299']
  assert study.disjoint_seed_sets('5,10-12', 2) == ['5,10-12', '18,23-25']


def test_strategies_are_compared_over_models_and_repeats(groupings, tmp_path, monkeypatch, capsys):
  other = tmp_path / 'second'
  arguments = runs.arguments(other, '--config.seed=1', steps=2, config='digits_groupings')
  assert main.main(['', *arguments]) == 0
  flags = f'--models={groupings},{other}', '--repeats=2'
  start(grouping_strategies, monkeypatch, 'digits_groupings', tmp_path, *flags)
  measured = rows(tmp_path, 'grouping_strategies')
  names = 'bottom_top', 'right_left', 'cdm', 'cdm_inv'
  expected = itertools.product(('run', 'second'), names, ('0-29', '30-59'))
  assert sorted((r['model'], r['strategy'], r['seeds']) for r in measured) == sorted(expected)
  check_report(tmp_path / 'grouping_strategies', '12.63', 'bottom_top', '2 trained models')
  out = capsys.readouterr().out
  best = min(
    names, key=lambda n: np.mean([float(r['distance']) for r in measured if r['strategy'] == n])
  )
  assert f'From low to high FD (pixels): {best}, ' in out
  assert 'In the paper: bottom_top, right_left, cdm_inv, cdm.' in out


def test_more_groups_need_as_many_steps(tmp_path_factory, monkeypatch):
  workdir = trained(tmp_path_factory, 'digits_columns')
  start(group_count, monkeypatch, 'digits_columns', workdir, '--budgets=4,8', '--repeats=1')
  measured = [(r['strategy'], r['evaluations']) for r in rows(workdir, 'group_count')]
  assert measured == [
    *[(f'k{k}', n) for k in (1, 2, 4) for n in ('4', '8')],
    ('k8', '8'),
  ]
  check_report(workdir / 'group_count', 'k = 8', '4 evaluations')


def test_training_intervals_are_trained_once_and_crossed_with_those_of_generation(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(time_intervals, 'TRAINING', ((0.1, 0.2, 0.5), (0.7, 0.8, 0.9)))
  monkeypatch.setattr(time_intervals, 'GENERATION', ((0.1, 0.8, 0.9), (0.1, 0.2, 0.3)))
  tiny = f'--config.train.duration={2 * runs.BATCH}', '--repeats=1', '--config.sampling.steps=12'
  args = time_intervals, monkeypatch, 'digits_frequency', tmp_path, *tiny
  start(*args, trained=False)
  measured = rows(tmp_path, 'time_intervals')
  assert [(r['model'], r['cuts']) for r in measured] == [
    (model, cuts)
    for model in ('0.1-0.2-0.5', '0.7-0.8-0.9')
    for cuts in ('0.1-0.8-0.9', '0.1-0.2-0.3')
  ]
  assert len({r['distance'] for r in measured}) == 4
  check_report(tmp_path / 'time_intervals', '0.7-0.8-0.9', 'The lowest FD (pixels)')
  before = (tmp_path / 'time_intervals' / 'results.csv').read_bytes()
  trained = tmp_path / 'trained' / '0.7-0.8-0.9'
  start(*args, trained=False)
  assert (tmp_path / 'time_intervals' / 'results.csv').read_bytes() == before
  assert runs.steps_saved(trained) == [2]
  assert len(runs.metrics(trained)) == 2

  # A probe finds other intervals; what the rest has is kept.
  monkeypatch.setattr(find_intervals, 'find', lambda *args: (0.25, 0.5, 0.75))
  start(*args, '--probe=32', trained=False)
  more = rows(tmp_path, 'time_intervals')
  assert more[:4] == measured
  assert [r['model'] for r in more[4:]] == ['0.25-0.5-0.75'] * 2
  check_report(tmp_path / 'time_intervals', '0.25-0.5-0.75 (probe)')


def test_weightings_are_trained_alike(tmp_path, monkeypatch):
  tiny = f'--config.train.duration={2 * runs.BATCH}', '--repeats=1', '--seeds=2'
  args = loss_weighting, monkeypatch, 'digits', tmp_path, *tiny
  start(*args, trained=False)
  measured = rows(tmp_path, 'loss_weighting')
  kinds = [f'{w}-{seed}' for w in ('unweighted', 'velocity', 'active') for seed in (0, 1)]
  assert [row['model'] for row in measured] == kinds
  assert len({row['parameters'] for row in measured}) == 6
  check_report(tmp_path / 'loss_weighting', 'kernel distance', 'over 2 trained models')


def test_intervals_of_another_number_of_groups_are_refused(tmp_path, monkeypatch, capsys):
  with pytest.raises(SystemExit) as stop:
    start(time_intervals, monkeypatch, 'digits_groupings', tmp_path, trained=False)
  assert stop.value.code == 2
  assert 'the intervals are for four' in capsys.readouterr().err


def test_table_2_has_all_numbers_and_its_best():
  assert len(paper.TABLE_2) == 35
  best = (0.6, 0.8, 0.9), (0.1, 0.2, 0.3)
  assert min(paper.TABLE_2, key=paper.TABLE_2.get) == best
  assert paper.TABLE_2[best] == 17.41
  assert paper.TABLE_2[(0.1, 0.2, 0.5), (0.1, 0.8, 0.9)] == 25.39
  assert paper.TABLE_2[(0.7, 0.8, 0.9), (0.1, 0.2, 0.5)] == 20.42


def test_deviations_are_over_models_if_there_are_several():
  rows = pd.DataFrame(
    {
      'model': ['a', 'a', 'b', 'b'],
      'cuts': ['x', 'y', 'x', 'y'],
      'distance': ['1', '3', '5', '7'],
      'kernel': ['0.1', '0.3', '0.5', '0.7'],
    }
  )
  assert study.mean_and_deviation(rows) == (4, pytest.approx(8**0.5))
  assert study.mean_and_deviation(rows[:2]) == (2, pytest.approx(2**0.5))
  assert study.mean_and_deviation(rows[:1]) == (1, 0)
  assert list(study.statistics(rows, 'cuts')['text']) == ['3 ± 2.8', '5 ± 2.8']
  assert list(study.statistics(rows, 'cuts')['kernel']) == ['0.3 ± 0.28', '0.5 ± 0.28']


def test_published_judges_have_folders_of_their_own(tmp_path):
  names = {j: study.Study('s', tmp_path, judge=j).folder.name for j in ('classifier', 'lite0', '')}
  assert names == {'classifier': 's', 'lite0': 's_lite0', '': 's'}


def test_a_row_serves_every_budget_with_its_steps():
  rows = pd.DataFrame({'solver': ['heun', 'euler'], 'steps': ['4', '9']})
  at_budgets = study.budgets_of(rows, [8, 9, 10])
  assert list(zip(at_budgets['solver'], at_budgets['budget'], strict=True)) == [
    ('heun', 8),
    ('heun', 9),
    ('euler', 9),
  ]
  cells = at_budgets.assign(text='1').set_index(['solver', 'budget'])['text']
  assert report.pivot(cells, 'metric', [8, 9, 10], ' evaluations').to_dict('records') == [
    {'metric': 'heun', '8 evaluations': '1', '9 evaluations': '1', '10 evaluations': ''},
    {'metric': 'euler', '8 evaluations': '', '9 evaluations': '1', '10 evaluations': ''},
  ]


def test_text_escapes_and_aligns(tmp_path):
  table = [{'a': '<b>', 'long name': 1}, {'a': 'x', 'long name': 22}]
  assert report.to_text(table) == 'a    long name\n<b>  1\nx    22'
  file = tmp_path / 'report.html'
  rows = pd.DataFrame({'a': ['1', '1'], 'b': ['<', '>']})
  config = ConfigDict({'checkpoint': {'model': '/a/machine/<'}})
  report.write_html(file, 'T & t\n\nabout', table, ['1 < 2'], [], rows, config)
  page = file.read_text()
  for escaped in ('<td>&lt;b&gt;</td>', '<h1>T &amp; t</h1>', '<p>1 &lt; 2</p>', '&#34;&lt;&#34;'):
    assert escaped in page
  assert '<td>a</td><td>1</td>' in page
  assert '<td>b</td>' not in page  # not shared
  assert '/a/machine' not in page  # of a model its name alone


def test_help_lists_the_flags_of_an_experiment(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['', '--help'])
  with pytest.raises(SystemExit) as stop:
    command.start(order_sweep.run, order_sweep.__doc__)
  assert stop.value.code == 0
  printed = capsys.readouterr().out
  for word in ('Fig. 5', '--orders', '100', '--repeats'):
    assert word in printed
