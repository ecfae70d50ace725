"""The held-out loss of each group: what it measures, and that training does not notice it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import default
from gdm_jax import build, figures, grouping, main
from gdm_jax.basis import pixel
from gdm_jax.conditioning import Predictor
from gdm_jax.data import sources
from gdm_jax.data.units import from_uint8
from gdm_jax.process import Process
from gdm_jax.runtime import sharding
from gdm_jax.runtime.distributed import StopSignal
from gdm_jax.runtime.errors import DataError
from gdm_jax.training import validation
from gdm_jax.training.logger import Logger
from gdm_jax.training.step import TrainState
from gdm_jax.training.validation import Cell, Validation, summary, turned
from tests.support import runs

HELD_OUT = (
  *('--config.data.split=train[:90%]', '--config.log.validation=train[90%:]'),
  f'--config.log.validation_every={2 * runs.BATCH}',
)


@pytest.fixture(scope='module', autouse=True)
def few_evaluations():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(validation, 'EVALUATIONS', 96)
    yield


@pytest.fixture(scope='module')
def trained(few_evaluations, tmp_path_factory):
  """A run with a held-out loss after 2, 4, 6 and 8 steps."""
  workdir = tmp_path_factory.mktemp('validated') / 'run'
  assert main.main(['', *runs.arguments(workdir, *HELD_OUT, steps=8)]) == 0
  return workdir


def unseen(workdir):
  return [row for row in runs.metrics(workdir) if 'validation_loss' in row]


def test_training_does_not_notice(trained, tmp_path):
  without = tmp_path / 'run'
  assert main.main(['', *runs.arguments(without, HELD_OUT[0], steps=8)]) == 0
  runs.assert_same_bits(runs.arrays(trained, 8), runs.arrays(without, 8))
  assert not unseen(without)
  losses_of = [
    [row['loss'] for row in runs.metrics(w) if 'loss' in row] for w in (trained, without)
  ]
  assert losses_of[0] == losses_of[1]
  assert Image.open(trained / 'loss.png').width > Image.open(without / 'loss.png').width


def test_rows_have_the_loss_of_every_group_and_third(trained):
  rows = unseen(trained)
  assert [row['step'] for row in rows] == [2, 4, 6, 8]
  for row in rows:
    thirds = np.array(row['validation_loss_of_thirds']['main'])
    assert thirds.shape == (4, 3)
    np.testing.assert_allclose(row['validation_loss_of_groups']['main'], thirds.mean(1))
    np.testing.assert_allclose(row['validation_loss'], thirds.mean())


def test_a_stopped_run_has_the_same_rows_also_if_it_missed_one(trained, tmp_path):
  workdir = tmp_path / 'run'
  assert main.main(['', *runs.arguments(workdir, *HELD_OUT, steps=4)]) == 0
  file = workdir / 'metrics.jsonl'
  lines = [line for line in file.read_text().splitlines(True) if '"validation_loss"' not in line]
  file.write_text(''.join(lines))  # as if it had been stopped just after saving
  assert main.main(['', *runs.arguments(workdir, *HELD_OUT, steps=8)]) == 0
  assert unseen(workdir) == unseen(trained)[1:]


def test_more_devices_measure_the_same(trained, tmp_path):
  done = runs.python(
    '-c',
    'import sys; from gdm_jax import main; from gdm_jax.training import validation;'
    'validation.EVALUATIONS = 96; sys.exit(main.main(sys.argv))',
    *runs.arguments(tmp_path / 'run', *HELD_OUT, steps=2),
    devices=8,
  )
  assert done.returncode == 0
  one, eight = unseen(trained)[0], unseen(tmp_path / 'run')[0]
  thirds = 'validation_loss_of_thirds'
  np.testing.assert_allclose(eight[thirds]['main'], one[thirds]['main'], rtol=1e-4)


@pytest.mark.parametrize(
  ('split', 'message'),
  [
    ('train[80%:]', "log.validation = 'train[80%:]': 179 examples are those of data.split"),
    ('train', "log.validation = 'train': 1,617 examples are those of data.split"),
    ('train[5000:]', "log.validation = 'train[5000:]': data.split='train[5000:]' leaves nothing"),
    ('test', "log.validation = 'test': data.split='test': digits has only train"),
  ],
)
def test_a_split_that_is_no_held_out_one_is_refused(split, message, tmp_path, capsys):
  args = runs.arguments(tmp_path / 'run', HELD_OUT[0], f'--config.log.validation={split}')
  assert main.main(['', *args]) == 2
  assert f'error: {message}' in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_splits_of_prepared_data_are_compared_file_by_file():
  where = '(32, 32, 3)', str(runs.ROOT / 'tests/golden/tfds')
  name = 'tfds:cifar10'
  sources.require_disjoint(name, 'train[:50%]', 'k', 'train[50%:]', (32, 32, 3), where[1])
  sources.require_disjoint(name, 'train', 'k', 'test', (32, 32, 3), where[1])
  with pytest.raises(DataError, match=r"k = 'train\[40%:\]': \d+ examples are those of"):
    sources.require_disjoint(name, 'train[:50%]', 'k', 'train[40%:]', (32, 32, 3), where[1])


def test_the_loss_is_that_of_the_moving_group_at_levels_of_each_third(tmp_path, monkeypatch):
  """An error of (1 + j) alpha: the mean square of a third is that of alpha over it."""
  config = main.parse(['', *runs.arguments(tmp_path, *HELD_OUT)]).config
  config.strategies.main = default.strategy('rows', (2,), order=(1, 0), cuts=(0.2,))
  source = sources.load('digits', 'train[90%:]', (8, 8, 1))
  process = Process(grouping.rows((8, 8), 2), pixel((8, 8)))
  real = build.system(config)
  x = from_uint8(source.x[:16])
  monkeypatch.setattr(validation, 'EVALUATIONS', 6 * 16)
  config.sampling.batch = 16  # a cell at a time

  class Known(Predictor):
    """Knows the data, and is wrong by the group's number and level."""

    def bind(self, params, label):
      def predict(x_t, alpha):
        level = process.coefficient_map(alpha)
        wrong = process.coefficient_map((1 + np.arange(2)) * alpha)
        return x - (x_t - level * x) / jnp.maximum(1 - level, 1e-6) - wrong

      return predict

  system = build.System(process, real.strategies, Known(real.predictor.network, process))
  mesh, logger = sharding.mesh(), Logger(tmp_path, 16, 0, 1)
  measure = Validation(config, system, source, tmp_path, mesh, StopSignal([], mesh))
  measure(TrainState(np.int32(1), None, {}, None), 16, logger)
  logger.close()
  (row,) = unseen(tmp_path)
  way = (np.arange(48) + 0.5) / 48
  expected = np.mean(way.reshape(3, 16) ** 2, axis=1)
  np.testing.assert_allclose(
    row['validation_loss_of_thirds']['main'], [expected, 4 * expected], rtol=1e-3
  )


def rows_of(unseen, training):
  for i, (a, b) in enumerate(zip(unseen, training, strict=True)):
    yield {'images': 10 * i + 10, 'loss': b}
    yield {'images': 10 * i + 10, 'validation_loss': a}


@pytest.mark.parametrize(
  ('unseen', 'training', 'warns'),
  [
    ((4, 3, 3.1, 3.2, 3.3), (5, 4, 3, 2, 1), True),
    ((4, 3, 3.1, 3.2), (5, 4, 3, 2), False),  # twice
    ((3, 3.1, 3.2, 3.3, 3.4), (5, 4, 3, 2, 1), False),  # it was said before
    ((4, 3, 3.1, 3.05, 3.3), (5, 4, 3, 2, 1), False),  # not in a row
    ((4, 3, 3.1, 3.2, 3.3), (1, 2, 3, 4, 5), False),  # the training loss rises too
    ((4, 3, 3.001, 3.002, 3.003), (5, 4, 3, 2, 1), False),  # by too little
  ],
)
def test_a_loss_that_turns_is_named_once(unseen, training, warns):
  warning = turned(list(rows_of(unseen, training)))
  assert bool(warning) == warns
  if warns:
    assert 'risen 3 times in a row, from 3 at 20 images to 3.3, while the training loss' in warning


def test_a_summary_is_even_over_groups_and_strategies():
  cells = [Cell('a', 0, 0), Cell('a', 0, 1), Cell('b', 0, 0), Cell('b', 0, 1)]
  cells += [Cell('b', 1, 0), Cell('b', 1, 1)]
  row = summary(cells, np.array([1.0, 3, 0, 4, 6, 8]))
  assert row == {
    'validation_loss': (2 + (2 + 7) / 2) / 2,
    'validation_loss_of_groups': {'a': [2], 'b': [2, 7]},
    'validation_loss_of_thirds': {'a': [[1, 3]], 'b': [[0, 4], [6, 8]]},
  }


def test_many_groups_are_drawn_without_names(tmp_path):
  groups = {'main': list(range(1, 30))}
  rows = [
    {'step': i, 'images': 10 * i, 'loss': 1 / i, 'validation_loss': 1.0}
    | {'validation_loss_of_groups': groups}
    for i in (1, 2, 3)
  ]
  (tmp_path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  figures.plot_loss(tmp_path / 'loss.png', tmp_path / 'metrics.jsonl')
  assert Image.open(tmp_path / 'loss.png').width > 1000
