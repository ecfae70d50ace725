"""--mode=evaluate and --mode=reference: a row says what was measured, once; errors name the key."""

import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from gdm_jax import main
from gdm_jax.evaluation import classifier, evaluator, reference
from gdm_jax.evaluation.evaluator import Evaluator
from gdm_jax.generation.generator import Generator
from gdm_jax.modes import evaluate
from tests.support import runs
from tests.support.evaluations import command, rows


@pytest.fixture(scope='module')
def workdir(trained, tmp_path_factory):
  """A copy of the trained workdir, to which every test of this file may add rows."""
  folder = tmp_path_factory.mktemp('evaluated') / 'run'
  shutil.copytree(trained, folder)
  return folder


@pytest.fixture(autouse=True)
def short(monkeypatch):
  """Classifiers are trained for a moment."""
  monkeypatch.setattr(classifier, 'WIDTHS', (4, 4, 4))
  monkeypatch.setattr(classifier, 'IMAGES', 2 * classifier.BATCH)


@pytest.fixture
def idle(monkeypatch):
  """Fails where anything is generated."""
  monkeypatch.setattr(Generator, 'iterate', lambda *_: pytest.fail('generated'))


@pytest.fixture(scope='module')
def measured(workdir):
  """The row of the first command."""
  assert command(workdir) == 0
  return rows(workdir)[-1]


def test_a_row_states_all_that_it_depends_on(measured, workdir):
  assert tuple(measured) == evaluator.KEYS + evaluator.VALUES
  stated = dict(measured)
  numbers = {
    key: float(stated.pop(key))
    for key in ('distance', 'kernel', 'kernel_error', 'precision', 'recall')
  }
  assert all(np.isfinite(value) for value in numbers.values())
  assert numbers['distance'] > 1
  assert numbers['kernel'] > numbers['kernel_error'] > 0
  assert 0 <= numbers['precision'] <= 1
  assert 0 <= numbers['recall'] <= 1
  for key in ('identity', 'parameters'):
    assert re.fullmatch('[0-9a-f]{8}', stated.pop(key))
  assert re.fullmatch('[0-9a-f]{16}', stated.pop('fingerprint'))
  assert stated == {
    'checkpoint': '8',
    'strategy': 'main',
    'order': '0-1-2-3',
    'cuts': '',
    'steps': '4',
    'rho': '',
    'solver': 'euler',
    'guidance': '1.0',
    'labels': '',
    'seeds': '0-69',
    'features': 'pixels',
    'data': 'digits',
    'split': 'train',
    'metric': 'FD (pixels)',
    'images': '70',
    'compared': '70',
    'real': '1797',
    'evaluations': '4',
    'trained_images': f'{8 * runs.BATCH}',
  }


def flat(images):
  return np.reshape(images, (len(images), -1)) / 127.5 - 1


def frechet_of_samples(a, b):
  """From the samples' factors, C = X^T X: no covariance, and no root of one."""
  x, y = ((v - v.mean(0)) / np.sqrt(len(v) - 1) for v in (a, b))
  shared = np.linalg.svd(x @ y.T, compute_uv=False).sum()
  step = a.mean(0) - b.mean(0)
  return step @ step + np.square(x).sum() + np.square(y).sum() - 2 * shared


def test_the_distance_is_that_of_the_files_of_the_same_seeds(measured, workdir):
  folder = '--config.sampling.folder=same'
  assert command(workdir, '--config.sampling.seeds=0-69', folder, mode='sample') == 0
  files = sorted((workdir / 'same').glob('0*.png'))
  assert len(files) == 70
  made = flat([np.asarray(Image.open(file)) for file in files])
  real = flat(np.round(load_digits().images / 16 * 255))
  np.testing.assert_allclose(float(measured['distance']), frechet_of_samples(made, real), rtol=1e-5)


def test_a_row_is_measured_once(measured, workdir, idle, monkeypatch, capsys):
  monkeypatch.setattr(Evaluator, '__call__', lambda *_: pytest.fail('measured again'))
  before = (workdir / 'evaluation.csv').read_bytes()
  assert command(workdir) == 0
  assert (workdir / 'evaluation.csv').read_bytes() == before
  out, err = capsys.readouterr()
  assert f'it was in {workdir}/evaluation.csv' in err
  # On paper, what is printed can be traced back to its command.
  for text in (
    f'FD (pixels) {float(measured["distance"]):.4g}\n',
    f'kernel distance {float(measured["kernel"]):.3g} ± ',
    f'precision {float(measured["precision"]):.3f}, ',
    f'recall {float(measured["recall"]):.3f}, of 70 features of each\n',
    '70 samples (seeds 0-69) of checkpoint 8 (128 images, parameters ',
    'strategy main, order 0-1-2-3, euler, 4 steps, 4 evaluations\n',
    f'against 1,797 images of digits, train; features pixels {measured["identity"]}\n',
  ):
    assert text in out
  assert 'FID' not in out


@pytest.mark.parametrize(
  ('overrides', 'stated'),
  [
    (['evaluation.seeds=70-139'], {'seeds': '70-139'}),
    (
      ['checkpoint.load=4', 'sampling.order=3,1,0,2'],
      {'checkpoint': '4', 'trained_images': f'{4 * runs.BATCH}', 'order': '3-1-0-2'},
    ),
    (
      ['sampling.cuts=0.2,0.4,0.8', 'sampling.steps=5', 'sampling.solver=heun'],
      {'cuts': '0.2-0.4-0.8', 'steps': '5', 'solver': 'heun', 'evaluations': '10'},
    ),
    (['evaluation.split=train[-200:]'], {'split': 'train[-200:]', 'real': '200'}),
  ],
)
def test_another_evaluation_adds_a_row(overrides, stated, measured, workdir, capsys):
  before = rows(workdir)
  overrides = [f'--config.{override}' for override in overrides]
  assert command(workdir, *overrides) == 0
  out, err = capsys.readouterr()
  assert f'see {workdir}/evaluation.csv' in err
  *others, added = rows(workdir)
  assert others == before
  assert (added['parameters'] == measured['parameters']) == ('checkpoint' not in stated)
  free = {'parameters', 'fingerprint', 'distance', 'kernel', 'kernel_error', 'precision', 'recall'}
  assert {k: v for k, v in added.items() if k not in free and v != measured[k]} == stated
  assert added['distance'] != measured['distance']
  assert f'FD (pixels) {float(added["distance"]):.4g}\n' in out


def test_a_classifier_is_trained_once_for_a_workdir(measured, workdir, monkeypatch, capsys):
  features = ('--config.evaluation.features=classifier', '--config.evaluation.split=train[:90]')
  before = rows(workdir)
  assert command(workdir, *features) == 0
  assert 'classifier of digits: ' in capsys.readouterr().err
  *others, added = rows(workdir)
  assert others == before
  assert (added['features'], added['metric']) == ('classifier', 'FD (classifier)')
  assert added['identity'] != measured['identity']
  assert (workdir / 'evaluation' / 'classifier.npz').exists()
  monkeypatch.setattr(classifier, 'train', None)
  assert command(workdir, *features, '--config.evaluation.seeds=0-34') == 0
  assert rows(workdir)[-1]['identity'] == added['identity']


def test_a_reference_is_made_and_used(workdir, tmp_path, monkeypatch, capsys):
  file = tmp_path / 'new' / 'half.npz'
  named = f'--config.evaluation.reference={file}'
  split = '--config.evaluation.split=train[:50%]'
  assert command(workdir, named, split, mode='reference') == 0
  assert f'pixels of 898 images of digits, train[:50%]: {file}' in capsys.readouterr().err
  assert [f.name for f in file.parent.iterdir()] == ['half.npz']

  monkeypatch.setattr(reference, 'collect', None)
  assert command(workdir, named) == 0
  assert 'against 898 images of digits, train[:50%]; ' in capsys.readouterr().out
  added = rows(workdir)[-1]
  assert (added['split'], added['real'], added['seeds']) == ('train[:50%]', '898', '0-69')

  before = rows(workdir)
  assert command(workdir, named, '--config.evaluation.features=classifier') == 2
  error = capsys.readouterr().err
  assert f'error: evaluation.reference = {file}: statistics of features pixels, not classifier' in (
    error
  )
  file.write_bytes(file.read_bytes()[:-1])
  assert command(workdir, named, '--config.evaluation.seeds=0-29') == 2
  assert f'error: {file} holds no statistics of --mode=reference, or is damaged' in (
    capsys.readouterr().err
  )
  assert rows(workdir) == before


def test_a_reference_of_its_own_goes_into_the_workdir(tmp_path, idle, capsys):
  workdir = tmp_path / 'fresh'
  for split in ('train[:40]', 'train[:30]'):
    assert command(workdir, f'--config.data.split={split}', mode='reference') == 0
  found = [reference.load(f) for f in workdir.rglob('*') if f.is_file()]
  assert {f.parent for f in workdir.rglob('*.npz')} == {workdir / 'evaluation'}
  stated = {(statistics.moments.count, about['split']) for statistics, about in found}
  assert stated == {(30, 'train[:30]'), (40, 'train[:40]')}


def test_making_a_reference_again_replaces_it(tmp_path):
  split = '--config.data.split=train[:40]'
  assert command(tmp_path, split, mode='reference') == 0
  (file,) = (tmp_path / 'evaluation').iterdir()
  made = file.read_bytes()
  file.write_bytes(b'damaged')
  assert command(tmp_path, split, mode='reference') == 0
  assert file.read_bytes() == made


@pytest.mark.parametrize('place', ['a/file/mine.npz', 'a/folder'])
def test_a_reference_that_cannot_be_written_is_named(place, tmp_path, capsys):
  (tmp_path / 'a' / 'folder').mkdir(parents=True)
  (tmp_path / 'a' / 'file').write_text('mine')
  named = f'--config.evaluation.reference={tmp_path / place}'
  split = '--config.data.split=train[:40]'
  assert command(tmp_path / 'run', named, split, mode='reference') == 2
  error = capsys.readouterr().err
  assert f'evaluation.reference = {tmp_path / place}' in error
  assert 'Traceback' not in error


BAD = {
  'a step that is not there': (
    ['--config.checkpoint.load=7'],
    'checkpoint.load = 7: {} holds [4, 6, 8]',
  ),
  'one image': (
    ['--config.evaluation.seeds=0'],
    "evaluation.seeds = '0': 1 images are too few to evaluate; 20 are the least",
  ),
  'an image too few': (['--config.evaluation.seeds=0-18'], "evaluation.seeds = '0-18': 19 images"),
  'no seeds': (['--config.evaluation.seeds=some'], "evaluation.seeds = 'some'"),
  'a split that is not there': (
    ['--config.evaluation.split=test'],
    "evaluation.split = 'test': data.split='test': digits has only train",
  ),
  'a split that is too small': (
    ['--config.evaluation.split=train[:19]'],
    "evaluation.split = 'train[:19]': 19 images of digits are too few; 20 are the least",
  ),
  'Inception without weights': (
    ['--config.evaluation.features=inception'],
    "evaluation.weights = '' must be the weights of inception",
  ),
  'VGG-19 without its file': (
    ['--config.evaluation.features=vgg19', '--config.evaluation.weights=nowhere.npz'],
    "evaluation.weights = 'nowhere.npz' cannot be read: No such file",
  ),
  'unknown features': (
    ['--config.evaluation.features=fid'],
    "evaluation.features = 'fid': there are pixels, classifier, inception, lite0, vgg16, vgg19",
  ),
  'a reference that is not there': (
    ['--config.evaluation.reference=nowhere.npz'],
    'nowhere.npz holds no statistics of --mode=reference',
  ),
  'a solver that is not there': (['--config.sampling.solver=rk9'], "solver 'rk9' is unknown"),
  'another network': (
    ['--config.model.ddpmpp.channels=16'],
    'model.ddpmpp.channels = 16 (there 8)',
  ),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input_names_the_key_and_measures_nothing(name, trained, tmp_path, idle, capsys):
  overrides, wanted = BAD[name]
  workdir = tmp_path / 'run'
  shutil.copytree(trained, workdir)
  assert command(workdir, *overrides) == 2
  out, err = capsys.readouterr()
  assert wanted.format(workdir) in err
  assert 'Traceback' not in err
  assert not out
  assert rows(workdir) == []


def test_a_workdir_without_a_checkpoint_is_left_alone(tmp_path, idle, capsys):
  workdir = tmp_path / 'run'
  assert command(workdir) == 2
  assert f'--workdir={workdir} holds no checkpoint; train first' in capsys.readouterr().err
  assert not workdir.exists()


@pytest.mark.parametrize('mode', ['reference', 'train'])
def test_points_are_not_evaluated(mode, tmp_path, capsys):
  points = ('data.name=mixture', 'data.shape=2,1', 'model.name=mlp', 'evaluation.every=16')
  points += ('strategies.main.grouping=elements', 'strategies.main.groups=')
  overrides = [f'--config.{override}' for override in points]
  assert command(tmp_path, *overrides, mode=mode) == 2
  message = 'data.shape = (2, 1): only images, grey or of three colours, are evaluated'
  assert message in capsys.readouterr().err


def test_a_model_that_diverged_is_reported(workdir, monkeypatch, capsys):
  def broken(*args):
    params, step = original(*args)
    return jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params), step

  original = evaluate.load_ema
  monkeypatch.setattr(evaluate, 'load_ema', broken)
  before = rows(workdir)
  assert command(workdir, '--config.evaluation.seeds=100-149') == 1
  out, err = capsys.readouterr()
  assert 'error: 35 of 35 hold NaN or infinity, first the image of seed 100: the model or' in err
  assert 'Traceback' not in err
  assert not out
  assert rows(workdir) == before


def test_overrides_of_training_need_not_be_repeated(workdir, capsys):
  """The images that a model has seen are counted in batches of its own size."""
  argv = ['', f'--config={runs.ROOT}/configs/digits.py', f'--workdir={workdir}', '--mode=evaluate']
  keys = ('machine.cpu_devices=1', 'evaluation.features=pixels')
  keys += ('evaluation.seeds=0-19', 'sampling.steps=4')
  assert main.main([*argv, *(f'--config.{key}' for key in keys)]) == 0
  assert rows(workdir)[-1]['trained_images'] == f'{8 * runs.BATCH}'
