"""The experiments that have no paper figure of their own, and Fig. 1a, on models of a few steps."""

import csv
import json
import pathlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from experiments import fitted_places, quality_against_evaluations, step_allocation, toy_2d
from experiments.lib import command, report, study
from gdm_jax import main
from gdm_jax.data.arrays import Mixture
from tests.support import runs


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
  """A workdir of digits in 2 x 2 blocks, trained for 2 steps."""
  workdir = tmp_path_factory.mktemp('digits') / 'run'
  assert main.main(['', *runs.arguments(workdir, steps=2)]) == 0
  return workdir


def start(module, monkeypatch, workdir, *overrides):
  """The command of an experiment, here in this process."""
  argv = ['', f'--config={runs.ROOT}/configs/digits.py', f'--workdir={workdir}', *overrides]
  fast = (
    'machine.cpu_devices=1',
    'sampling.batch=40',
    'evaluation.features=pixels',
    'evaluation.seeds=0-69',
  )
  monkeypatch.setattr(sys, 'argv', [*argv, *(f'--config.{override}' for override in fast)])
  command.start(module.run, module.__doc__)


def rows(file):
  with file.open(newline='') as f:
    return list(csv.DictReader(f))


def test_quality_of_every_cell_is_measured_once(digits, monkeypatch, capsys):
  module = quality_against_evaluations
  monkeypatch.setattr(module, 'BUDGETS', (4, 5))
  monkeypatch.setattr(module, 'ORDERS', 2)
  flags = '--solvers=euler,multistep_midpoint', '--rhos=1', '--latents=4', '--orders=2'
  start(module, monkeypatch, digits, *flags)
  file = digits / 'quality_against_evaluations' / 'results.csv'
  measured = rows(file)
  cells = [(r['order'], r['solver'], r['evaluations'], r['steps']) for r in measured]
  other = cells[-1][0]
  assert sorted(other.split('-')) == ['0', '1', '2', '3']
  once = [  # the multistep rule evaluates once to start, and needs a step for each group
    (order, *cell)
    for order in ('0-1-2-3', other)
    for cell in [('euler', '4', '4'), ('euler', '5', '5'), ('multistep_midpoint', '5', '4')]
  ]
  assert cells == once + once
  assert [r['metric'] for r in measured] == ['path error'] * 6 + ['FD (pixels)'] * 6
  assert all(float(r['distance']) > 0 for r in measured)
  assert (digits / 'quality_against_evaluations' / 'figure.png').stat().st_size > 0

  # Rerun, it measures what is missing: a row that is taken away, the other ones as they are.
  marked = [{**r, 'distance': '7'} for r in measured]
  with file.open('w', newline='') as f:
    writer = csv.DictWriter(f, measured[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(marked[:2] + marked[3:])
  start(module, monkeypatch, digits, *flags)
  assert rows(file) == marked[:2] + marked[3:] + [measured[2]]


def test_allocation_compares_equal_and_measured_shares(digits, monkeypatch, capsys):
  module = step_allocation
  for name, value in {'BUDGETS': (2, 9), 'BATCHES': 2, 'BATCH': 4, 'REFERENCE': 12}.items():
    monkeypatch.setattr(module, name, value)
  monkeypatch.setattr(quality_against_evaluations, 'ORDERS', 1)
  start(module, monkeypatch, digits)
  out = capsys.readouterr().out
  file = digits / 'allocation' / 'results.csv'
  equal, allocated = rows(file)  # two evaluations are too few for four groups
  assert (equal['shares'], allocated['shares']) == ('equal', 'allocated')
  assert equal['steps'] == '3-2-2-2'
  largest = [max(map(float, row['errors'].split())) for row in (equal, allocated)]
  assert 0 < largest[1] <= largest[0]
  assert sum(map(int, allocated['steps'].split('-'))) == 9
  assert float(equal['distance']) > 0
  flag = allocated['steps'].replace('-', ',')
  assert f'--config.sampling.order=0,1,2,3 --config.sampling.steps={flag}' in out
  assert (digits / 'allocation' / 'figure.png').stat().st_size > 0

  before = file.read_bytes()
  monkeypatch.setattr(module, '_interval_measure', None)  # nothing is left to measure
  start(module, monkeypatch, digits)
  assert file.read_bytes() == before


def test_places_are_fitted(digits, monkeypatch, capsys):
  monkeypatch.setattr(quality_against_evaluations, 'ORDERS', 1)
  flags = '--budgets=4,8', '--latents=2'
  start(fitted_places, monkeypatch, digits, *flags, '--solvers=euler')
  found = rows(digits / 'fitted_places' / 'results.csv')
  assert [row['rows'] for row in found] == ['even', 'rho 1.5', 'fitted']  # 4 are one a group
  assert all(float(row['mean']) > 0 for row in found)
  assert 0 < float(found[-1]['places']) < 1
  with pytest.raises(SystemExit):
    start(fitted_places, monkeypatch, digits, *flags, '--solvers=euler,adaptive')
  assert "'adaptive' chooses its own steps" in capsys.readouterr().err


def test_a_model_of_the_package_stands_in_for_a_workdir(tmp_path, monkeypatch):
  def run(config, workdir):
    seen.append((config, workdir))

  seen = []
  argv = ['', '--model=digits', f'--workdir={tmp_path}', '--config.machine.cpu_devices=1']
  monkeypatch.setattr(sys, 'argv', argv)
  command.start(run, 'Looks.')
  ((config, workdir),) = seen
  assert config.data.name == 'digits'
  assert workdir == tmp_path
  assert study.Model(config, workdir, workdir).checkpoint.step > 1000
  # Its report does not say where on this machine the package is.
  page, rows = tmp_path / 'report.html', pd.DataFrame([{'distance': 1}])
  report.write_html(page, 'Looks.', {'distance': [1]}, [], [], rows, config)
  assert str(pathlib.Path(config.checkpoint.model).parent) not in page.read_text()


def test_toy_trains_draws_and_maps_the_density(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(toy_2d, 'STEPS', 8)
  monkeypatch.setattr(toy_2d, 'HELD_OUT', 64)
  workdir, results = tmp_path / 'run', tmp_path / 'results'
  tiny = ('train.duration=1024', 'model.mlp.width=8', 'log.grid=2', 'sampling.steps=4')
  argv = [f'--workdir={workdir}', f'--results={results}', '--side=24']
  argv += [f'--config.{override}' for override in tiny]
  for _ in range(2):
    toy_2d.command(argv)
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert {f.name for f in results.iterdir()} == {
      *('figure.png', 'trajectories.gif', 'density.png', 'report.json')
    }
    assert runs.steps_saved(workdir) == [2]
  assert 'resumed from step 2' in err
  held_out = Mixture().log_density(Mixture().sample(np.random.default_rng(1), 64)[0]).mean()
  np.testing.assert_allclose(report['truth']['held_out_nats'], held_out)
  assert abs(report['truth']['integral'] - 1) < 0.02  # of a coarse grid
  assert set(report) == {'truth', *toy_2d.RUNS, 'seconds'}
  for name in toy_2d.RUNS:
    # Hardly trained, it is a blob, most of it in the square.
    assert 0.5 < report[name]['integral'] < 1.01
    assert report[name]['held_out_nats'] < held_out


def test_help_says_what_an_experiment_is_for(monkeypatch, capsys):
  with pytest.raises(SystemExit) as stop:
    toy_2d.command(['--help'])
  assert stop.value.code == 0
  monkeypatch.setattr(sys, 'argv', ['', '--help'])
  with pytest.raises(SystemExit) as stop:
    command.start(quality_against_evaluations.run, quality_against_evaluations.__doc__)
  assert stop.value.code == 0
  done = subprocess.run(
    [sys.executable, '-m', 'experiments.step_allocation', '--help'],
    cwd=runs.ROOT,
    env=runs.environment(),
    capture_output=True,
    text=True,
    check=True,
  )
  printed = capsys.readouterr().out + done.stdout
  for name in ('toy_2d', 'quality_against_evaluations', 'step_allocation'):
    assert f'python -m experiments.{name}' in printed


def test_bad_input_is_named_in_a_line(tmp_path, monkeypatch, capsys):
  for override, message in [
    ('seeds=0-9', 'holds no checkpoint; train first'),
    ('solver=adaptive', "sampling.solver = 'adaptive' chooses its steps itself"),
    ('strategy=rows', "sampling.strategy = 'rows': there are main"),
  ]:
    with pytest.raises(SystemExit) as stop:
      start(step_allocation, monkeypatch, tmp_path, f'--config.sampling.{override}')
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
