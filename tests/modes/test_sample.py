"""--mode=sample: an image is a function of its seed, and a run can be stopped and gone on with."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from gdm_jax import main
from gdm_jax.generation.samples import SETTINGS, SampleFolder
from tests.support import runs


def arguments(workdir, folder, *overrides):
  folder = f'--config.sampling.folder={folder}'
  return runs.arguments(workdir, '--mode=sample', folder, *overrides, steps=8)


def images(folder):
  files = sorted(folder.glob('0*.png'))
  return {int(f.stem): np.asarray(Image.open(f)).astype(int) for f in files}


def largest_difference(some, reference):
  return max(np.abs(image - reference[seed]).max() for seed, image in some.items())


@pytest.fixture(scope='module')
def reference(trained):
  """The first 70 images, all at once on one device."""
  args = arguments(trained, 'ref', '--config.sampling.seeds=0-69', '--config.sampling.batch=70')
  assert main.main(['', *args]) == 0
  found = images(trained / 'ref')
  assert sorted(found) == list(range(70))
  assert found[3].shape == (8, 8)
  assert np.abs(found[0] - found[1]).max() > 20
  assert (trained / 'ref' / 'grid.png').exists()
  return found


@pytest.mark.parametrize('devices', [1, 8])
@pytest.mark.parametrize('batch', [1, 7, 64])
def test_an_image_depends_on_its_seed_alone(batch, devices, trained, reference):
  folder = f'{batch}_{devices}'
  seeds = '--config.sampling.seeds=0-2,69,5-10' if batch == 1 else '--config.sampling.seeds=0-69'
  args = arguments(trained, folder, seeds, f'--config.sampling.batch={batch}')
  result = runs.command(*args, devices=devices)
  assert result.returncode == 0, result.stderr
  found = images(trained / folder)
  assert sorted(found) == ([0, 1, 2, *range(5, 11), 69] if batch == 1 else list(range(70)))
  assert largest_difference(found, reference) <= 1  # of 255: float rounding, then rounding


def stop_after(monkeypatch, batches):
  write, count = SampleFolder.write, iter(range(batches))

  def stopping(*args):
    if next(count, None) is None:
      raise KeyboardInterrupt
    write(*args)

  monkeypatch.setattr(SampleFolder, 'write', stopping)


@pytest.mark.parametrize('form', ['png', 'npz'])
def test_a_stopped_run_goes_on(form, trained, reference, monkeypatch, capsys):
  args = arguments(
    trained,
    f'stopped_{form}',
    f'--config.sampling.format={form}',
    '--config.sampling.seeds=0-29',
    '--config.sampling.batch=8',
  )
  folder = trained / f'stopped_{form}'
  with monkeypatch.context() as patch:
    stop_after(patch, 2)
    assert main.main(['', *args]) == 130
  assert 'interrupted; run the same command again' in capsys.readouterr().err
  before = {f.name: f.stat().st_mtime_ns for f in folder.iterdir()}
  assert len(before) == 1 + (16 if form == 'png' else 2)
  torn, being_written = (folder / f'.000020.png.{i}.tmp' for i in range(2))
  for file in (torn, being_written):
    file.write_text('torn')
  os.utime(torn, (0, 0))
  for file in [*folder.glob('000003.png'), *folder.glob('samples-8-15.npz')]:
    file.write_bytes(file.read_bytes()[:-20])  # as a power cut leaves it

  assert main.main(['', *args]) == 0
  kept = 15 if form == 'png' else 8
  assert f'{kept} of 30 samples exist already' in capsys.readouterr().err
  assert not torn.exists()
  being_written.unlink()  # it may be another job's
  if form == 'png':
    found = images(folder)
    untouched = [f for f in folder.iterdir() if f.stat().st_mtime_ns == before.get(f.name)]
    assert len(untouched) == 15
    others = {'grid.png', 'settings.json'}
    assert {f.name for f in folder.iterdir()} == {f'{i:06d}.png' for i in range(30)} | others
  else:
    assert {f.name for f in folder.iterdir()} == {'samples.npz', 'grid.png', 'settings.json'}
    saved = np.load(folder / 'samples.npz')
    np.testing.assert_array_equal(saved['seeds'], np.arange(30))
    # As the field's evaluators read it.
    assert (saved['arr_0'].dtype, saved['arr_0'].shape) == (np.uint8, (30, 8, 8, 1))
    assert set(saved['label']) == {-1}
    found = dict(enumerate(np.clip(np.round((saved['x'][..., 0] + 1) * 127.5), 0, 255)))
    for i in found:
      np.testing.assert_array_equal(saved['arr_0'][i, ..., 0], found[i])
  assert largest_difference(found, reference) <= 1

  # All are there: nothing is generated. And more seeds join them.
  assert main.main(['', *args]) == 0
  assert '30 of 30 samples exist already' in capsys.readouterr().err
  assert main.main(['', *args, '--config.sampling.seeds=20-39']) == 0
  assert '10 of 20 samples exist already' in capsys.readouterr().err
  if form == 'npz':
    np.testing.assert_array_equal(np.load(folder / 'samples.npz')['seeds'], np.arange(40))


def test_samples_of_another_kind_are_not_mixed(trained, reference, capsys):
  args = arguments(trained, 'ref', '--config.sampling.solver=heun', '--config.sampling.steps=8')
  assert main.main(['', *args]) == 2
  error = capsys.readouterr().err
  assert 'solver = heun (there euler), steps = [8] (there [4])' in error
  assert '--config.sampling.folder' in error
  assert len(images(trained / 'ref')) == 70


def test_the_workdir_says_what_the_model_is(trained, reference, tmp_path, capsys):
  config = f'--config={runs.ROOT}/configs/digits.py'
  args = [config, f'--workdir={trained}', '--mode=sample', '--config.machine.cpu_devices=1']
  args += ['--config.sampling.steps=4', '--config.sampling.folder=plain']
  args += ['--config.sampling.seeds=0-3']
  assert main.main(['', *args]) == 0
  assert largest_difference(images(trained / 'plain'), reference) <= 1
  assert main.main(['', *args, '--config.model.ddpmpp.channels=16']) == 2
  assert 'model.ddpmpp.channels = 16 (there 8)' in capsys.readouterr().err


def test_another_strategy_than_the_trained_one_is_refused(trained, reference, capsys):
  for override in ('main.order=1,0,2,3', 'main.groups=4,1'):
    args = arguments(trained, 'other', f'--config.strategies.{override}')
    assert main.main(['', *args]) == 2
    assert f'strategies.{override.split("=")[0]} = ' in capsys.readouterr().err
  args = runs.arguments(trained, steps=8)
  args[0] = args[0].replace('digits', 'digits_strategies')
  assert main.main(['', *args, '--config.train.weighting=active']) == 2
  assert 'strategies.blocks.groups = [2, 2] (there None)' in capsys.readouterr().err


def test_guidance_needs_labels_hidden_in_training(trained, reference, tmp_path, capsys):
  hidden = ('--config.model.classes=10', '--config.train.label_dropout=0.0')
  assert main.main(['', *runs.arguments(tmp_path, *hidden, steps=1)]) == 0
  plain = [f'--config={runs.ROOT}/configs/digits.py', f'--workdir={tmp_path}', '--mode=sample']
  args = [*plain, '--config.machine.cpu_devices=1', '--config.sampling.guidance=2.0']
  assert main.main(['', *args]) == 2
  assert 'train.label_dropout = 0.0' in capsys.readouterr().err


def test_labels_go_round_and_guidance_moves_images(labelled):
  common = ['--config.sampling.seeds=0-11', '--config.log.grid=1']
  folders = {
    'all': [],
    'three': ['--config.sampling.labels=3'],
    'guided': ['--config.sampling.guidance=30.0'],
    'none': ['--config.sampling.guidance=0.0'],
    'none_three': ['--config.sampling.guidance=0.0', '--config.sampling.labels=3'],
  }
  for folder, overrides in folders.items():
    assert main.main(['', *arguments(labelled, folder, *common, *overrides)]) == 0
  found = {folder: images(labelled / folder) for folder in folders}
  same = [i for i in range(12) if (found['all'][i] == found['three'][i]).all()]
  assert same == [3]
  assert largest_difference(found['none'], found['none_three']) <= 1
  assert largest_difference(found['all'], found['none']) > 0
  assert largest_difference(found['all'], found['guided']) > 5


DIVERGES = ('--config.sampling.guidance=1e36', '--config.sampling.seeds=0-3')


def test_samples_that_are_not_finite_are_not_written(labelled, capsys):
  assert main.main(['', *arguments(labelled, 'diverged', *DIVERGES)]) == 1
  assert '4 of 4 hold NaN or infinity, first the sample of seed 0' in capsys.readouterr().err
  assert images(labelled / 'diverged') == {}


def test_a_picture_that_changed_is_another_setting(trained, tmp_path, capsys):
  picture = tmp_path / 'mine.png'
  args = arguments(trained, 'of_picture', f'--config.sampling.latents={picture}')
  args += ['--config.sampling.seeds=0', '--config.log.grid=1']
  for level in (0, 200):
    Image.new('L', (8, 8), level).save(picture)
    assert main.main(['', *args]) == (2 if level else 0)
  error = capsys.readouterr().err
  assert f"pictures = {{'{picture}': " in error
  assert 'of_picture holds samples with other settings' in error


def test_the_cache_is_no_setting_of_samples(trained, reference, capsys):
  """Also of folders that were written when it was one."""
  file = trained / 'ref' / SETTINGS
  settings = json.loads(file.read_text())
  assert 'cache' not in settings
  file.write_text(json.dumps(settings | {'cache': True}))
  seeds = '--config.sampling.seeds=0-69'
  assert main.main(['', *arguments(trained, 'ref', seeds, '--config.sampling.cache=False')]) == 0
  assert '70 of 70 samples exist already' in capsys.readouterr().err


def test_a_folder_that_is_a_file_is_named(trained, tmp_path, capsys):
  (tmp_path / 'file').touch()
  assert main.main(['', *arguments(trained, tmp_path / 'file')]) == 2
  assert f'sampling.folder = {tmp_path}/file cannot be written' in capsys.readouterr().err
