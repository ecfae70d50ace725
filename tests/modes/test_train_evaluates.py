"""Evaluation during training: each checkpoint once, stopped soon by a signal."""

import os
import signal

import pytest
from PIL import Image

from gdm_jax import figures, main
from gdm_jax.evaluation import classifier, evaluator
from gdm_jax.evaluation.evaluator import Evaluator
from tests.support import runs
from tests.support.evaluations import PIXELS, command, rows


@pytest.fixture(autouse=True)
def short(monkeypatch):
  """Classifiers are trained for a moment."""
  monkeypatch.setattr(classifier, 'WIDTHS', (4, 4, 4))
  monkeypatch.setattr(classifier, 'IMAGES', 2 * classifier.BATCH)


def train(workdir, *overrides):
  """Trains for six steps, evaluates after every second one and saves after every third."""
  few = ('evaluation.seeds=0-23', 'data.split=train[:200]', f'evaluation.every={2 * runs.BATCH}')
  args = [PIXELS, *(f'--config.{override}' for override in few), *overrides]
  return main.main(['', *runs.arguments(workdir, *args, steps=6, save_every=3)])


def test_training_measures_each_checkpoint_once(tmp_path, monkeypatch, capsys):
  workdir, calls, measure = tmp_path / 'run', [], Evaluator.__call__

  def die(_, cells, like):
    if like['checkpoint'] == '4':
      raise KeyboardInterrupt  # with step 4 in no checkpoint

  def counted(*args):
    calls.append(1)
    return measure(*args)

  monkeypatch.setattr(Evaluator, '__call__', counted)
  with monkeypatch.context() as patch:
    patch.setattr(evaluator, 'plot', die)
    assert train(workdir) == 130
  assert runs.steps_saved(workdir) == [3]
  before = rows(workdir)
  assert [row['checkpoint'] for row in before] == ['2', '4']
  assert len(calls) == 2

  assert train(workdir) == 0
  found = rows(workdir)
  assert found[:2] == before
  assert [row['checkpoint'] for row in found] == ['2', '4', '6']
  assert [row['trained_images'] for row in found] == [f'{n * runs.BATCH}' for n in (2, 4, 6)]
  assert len({row['distance'] for row in found}) == 3
  assert len(calls) == 3
  errors = capsys.readouterr().err
  for row in found:
    assert f'{row["trained_images"]} images: FD (pixels) {row["distance"]}\n' in errors
  with Image.open(workdir / 'evaluation.png') as picture:
    assert min(picture.size) > 100

  # The last row is the one that evaluating the last checkpoint would give.
  few = ('--config.evaluation.seeds=0-23', '--config.data.split=train[:200]')
  assert command(workdir, *few) == 0
  assert rows(workdir) == found
  (workdir / 'evaluation.csv').unlink()
  assert command(workdir, *few, '--config.sampling.batch=8') == 0
  assert rows(workdir) == found[2:]


def test_the_curve_is_of_rows_that_differ_in_nothing_else(tmp_path, monkeypatch):
  cells, drawn = evaluator.open_csv(tmp_path), []
  monkeypatch.setattr(figures, 'plot_lines', lambda _, lines, **__: drawn.append(lines))
  row = dict.fromkeys(evaluator.KEYS + evaluator.VALUES, '1')
  for step, strategy, distance in [(30, 'a', 3), (10, 'a', 9), (20, 'a', 5), (20, 'b', 7)]:
    images = step * 100_000
    row |= {'checkpoint': step, 'strategy': strategy, 'distance': distance}
    cells.add(row | {'trained_images': images})
  evaluator.plot(tmp_path / 'evaluation.png', cells, cells.rows[0])
  assert drawn == [{'a': [(1, 9), (2, 5), (3, 3)]}]


def test_a_signal_while_evaluating_stops_soon_and_saves(tmp_path, monkeypatch, capsys):
  workdir, seen, collect = tmp_path / 'run', [], Evaluator.collect

  def signalled(self, collectors, x, seeds):
    collect(self, collectors, x, seeds)
    seen.append(len(seeds))
    if len(seen) == 2:  # of the three batches of 8 that are measured at step 2
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(Evaluator, 'collect', signalled)
  assert train(workdir) == 128 + signal.SIGTERM
  assert seen == [8, 8]
  assert runs.steps_saved(workdir) == [3]
  assert 'SIGTERM: saved step 3; run the same command again' in capsys.readouterr().err
  assert rows(workdir) == []


def test_training_that_evaluates_wants_its_weights_first(tmp_path, capsys):
  workdir = tmp_path / 'run'
  assert train(workdir, '--config.evaluation.features=inception') == 2
  assert "evaluation.weights = '' must be the weights of inception" in capsys.readouterr().err
  assert train(workdir, '--config.evaluation.seeds=0-3') == 2
  assert "evaluation.seeds = '0-3': 4 images are too few" in capsys.readouterr().err
  assert not (workdir / 'checkpoints').exists()
