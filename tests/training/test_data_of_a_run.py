"""A run remembers what its data hold: others are refused, and the same may lie elsewhere."""

import json
import shutil

import numpy as np
import pytest

from gdm_jax import main
from gdm_jax.evaluation import classifier
from tests.support import pictures, runs

SHAPE = ('--config.data.shape=(8,8,1)', '--config.model.classes=2')


def arguments(workdir, data, *overrides, steps=2):
  return runs.arguments(workdir, f'--config.data.name={data}', *SHAPE, *overrides, steps=steps)


@pytest.fixture(scope='module')
def before(tmp_path_factory):
  """A folder of pictures of two classes, and a run of two steps."""
  where, rng = tmp_path_factory.mktemp('before'), np.random.default_rng(0)
  for i in range(20):
    kind = ('cat', 'dog')[i % 2]
    pictures.write(where / 'data' / kind / f'{i}.png', rng.integers(0, 256, (8, 8)))
  assert main.main(['', *arguments(where / 'run', f'folder:{where}/data')]) == 0
  return where


@pytest.fixture
def here(before, tmp_path):
  shutil.copytree(before, tmp_path, dirs_exist_ok=True)
  return tmp_path


def test_is_told_at_the_start_and_kept(here, capsys):
  assert main.main(['', *arguments(here / 'run', f'folder:{here}/data', steps=3)]) == 0
  told = capsys.readouterr().err
  assert f'folder:{here}/data, train: 20 examples, 2 classes: 0 cat, 1 dog' in told
  assert 'training on 1 device (cpu)' in told
  kept = json.loads((here / 'run' / 'data.json').read_text())
  assert (kept['count'], kept['classes']) == (20, ['cat', 'dog'])


def test_moved_data_are_the_same_data(here):
  (here / 'data').rename(here / 'moved')
  assert main.main(['', *arguments(here / 'run', f'folder:{here}/moved', steps=3)]) == 0
  assert runs.steps_saved(here / 'run')[-1] == 3
  config = json.loads((here / 'run' / 'config.json').read_text())
  assert config['data']['name'] == f'folder:{here}/moved'


def rename(data):
  (data / 'dog').rename(data / 'ape')


def add(data):
  shutil.copy(data / 'cat' / '0.png', data / 'cat' / 'new.png')


def damage(data):
  (data / 'cat' / '0.png').write_bytes((data / 'dog' / '1.png').read_bytes() + b'\0')


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (rename, '20 examples, 2 classes: 0 ape, 1 cat; before 20 examples, 2 classes: 0 cat, 1 dog'),
    (add, '21 examples, 2 classes: 0 cat, 1 dog; before 20 examples'),
    (damage, 'as many examples and the same classes'),
  ],
)
def test_other_data_are_refused(here, change, words, capsys):
  change(here / 'data')
  files = {file: file.read_bytes() for file in (here / 'run').rglob('*') if file.is_file()}
  assert main.main(['', *arguments(here / 'run', f'folder:{here}/data', steps=3)]) == 2
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith(f'error: {here}/run holds a run with other data: {words}')
  assert files == {file: file.read_bytes() for file in (here / 'run').rglob('*') if file.is_file()}


def test_an_array_that_was_written_again_is_refused(tmp_path, capsys):
  x = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
  np.savez(tmp_path / 'x.npz', x=x, label=np.arange(20) % 2)
  args = arguments(tmp_path / 'run', f'npz:{tmp_path}/x.npz')
  assert main.main(['', *args]) == 0
  np.savez(tmp_path / 'x.npz', x=255 - x, label=np.arange(20) % 2)
  assert main.main(['', *args]) == 2
  assert 'holds a run with other data: as many' in capsys.readouterr().err


@pytest.mark.parametrize('content', ['', '{"count": 3', '[]', '{"count": "many"}'])
def test_a_damaged_file_is_written_again_from_the_checkpoint(here, content, capsys):
  file = here / 'run' / 'data.json'
  kept = file.read_text()
  file.write_text(content)
  rename(here / 'data')
  assert main.main(['', *arguments(here / 'run', f'folder:{here}/data', steps=3)]) == 2
  told = capsys.readouterr().err
  assert f'{file} is damaged: written again from the newest checkpoint' in told
  assert 'other data' in told
  assert file.read_text() == kept


def test_a_run_of_an_older_version_resumes(before, here):
  (here / 'run' / 'data.json').unlink()
  assert main.main(['', *arguments(here / 'run', f'folder:{here}/data', steps=3)]) == 2
  assert main.main(['', *arguments(here / 'run', f'folder:{before}/data', steps=3)]) == 0
  assert (here / 'run' / 'data.json').exists()


def test_labels_by_name(here, capsys):
  def sample(labels):
    args = arguments(here / 'run', f'folder:{here}/data')
    few = ('--mode=sample', '--config.sampling.seeds=0-3')
    code = main.main(
      ['', *args, *few, f'--config.sampling.labels={labels}', f'--config.sampling.folder={labels}']
    )
    return code, [file.read_bytes() for file in sorted((here / 'run' / labels).glob('0*.png'))]

  code, by_name = sample('Dog')
  assert (code, by_name) == sample('1,')
  assert (code, len(by_name)) == (0, 4)
  assert sample('dog,cat') == sample('1,0')
  assert sample('dog,cow') == (2, [])
  assert capsys.readouterr().err.splitlines()[-1] == (
    "error: sampling.labels = ('dog,cow',): 'cow' is no class of the data; it has cat, dog"
  )


def test_labels_by_name_in_training(here, tmp_path, capsys):
  args = arguments(tmp_path / 'new', f'folder:{here}/data', '--config.sampling.labels=dog')
  assert main.main(['', *args]) == 0
  args = arguments(tmp_path / 'other', f'folder:{here}/data', '--config.sampling.labels=cow')
  assert main.main(['', *args]) == 2
  assert "'cow' is no class of the data; it has cat, dog" in capsys.readouterr().err
  assert not (tmp_path / 'other').exists()


def test_statistics_and_classifier_are_those_of_the_data(here, monkeypatch):
  """Made again when the data change; found again when they only move."""
  monkeypatch.setattr(classifier, 'IMAGES', 256)

  def evaluate():
    few = ('--mode=evaluate', '--config.evaluation.seeds=0-19')
    assert main.main(['', *arguments(here / 'run', f'folder:{here}/data', *few)]) == 0
    rows = (here / 'run' / 'evaluation.csv').read_text().count('\n') - 1
    return rows, {file: file.stat().st_mtime_ns for file in (here / 'run/evaluation').iterdir()}

  rows, first = evaluate()
  assert (rows, len(first)) == (1, 2)
  (here / 'run' / 'evaluation.csv').unlink()
  assert evaluate() == (rows, first)
  damage(here / 'data')
  more, second = evaluate()
  assert (more, len(second)) == (2, 3)
  file = here / 'run' / 'evaluation' / 'classifier.npz'
  assert second[file] > first[file]
