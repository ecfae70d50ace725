"""Damaged checkpoints, a full disk and a second run: what was saved whole is not lost."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest

from gdm_jax import main
from gdm_jax.runtime import files, lock
from gdm_jax.training import checkpoint
from tests.support import fault_injection, runs
from tests.support.fault_injection import last_step, until

STEPS = 12
KEEP_ALL = '--config.checkpoint.keep=99'


@pytest.fixture
def folder(tmp_path):
  """A sealed folder of two files."""
  sealed = tmp_path / 'sealed'
  (sealed / 'inner').mkdir(parents=True)
  (sealed / 'one').write_bytes(bytes(range(200)))
  (sealed / 'inner' / 'two').write_bytes(b'2' * 3_000_000)
  files.write_checksums(sealed)
  assert files.has_checksums(sealed)
  assert files.find_damage(sealed) == ''
  return sealed


def change(file):
  """Overwrites one byte in the middle."""
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)


def truncate(file):
  os.truncate(file, file.stat().st_size // 2)


def overwrite(file):
  file.write_bytes(np.random.default_rng(0).bytes(file.stat().st_size))


@pytest.mark.parametrize('name', ['one', 'inner/two'])
@pytest.mark.parametrize(
  ('harm', 'words'), [(change, 'was changed'), (truncate, 'was changed'), (os.unlink, 'is missing')]
)
def test_a_seal_tells_what_is_not_as_it_was(harm, words, name, folder):
  harm(folder / name)
  assert files.find_damage(folder) == f'{name} {words}'


@pytest.mark.parametrize('text', ['', '{"one": 1', '[]]', '\x00'])
def test_a_seal_that_cannot_be_read_is_damage(text, folder):
  (folder / files.CHECKSUMS).write_text(text)
  assert files.find_damage(folder) == 'checksums.json cannot be read'


@pytest.mark.parametrize('text', ['[]', '"one"', '3', 'null', '[1]'])
def test_a_seal_of_another_kind_is_damage(text, folder):
  (folder / files.CHECKSUMS).write_text(text)
  assert files.find_damage(folder) == 'checksums.json cannot be read'


def test_a_sealed_folder_is_not_sealed_again(folder):
  change(folder / 'one')
  files.write_checksums(folder)
  assert files.find_damage(folder) == 'one was changed'


def test_half_a_seal_of_a_killed_run_is_no_part_of_the_folder(folder):
  (folder / files.CHECKSUMS).rename(folder / f'.{files.CHECKSUMS}.0123{files.TEMPORARY}')
  assert not files.has_checksums(folder)
  files.write_checksums(folder)
  assert files.find_damage(folder) == ''
  assert not any(
    files.TEMPORARY in name for name in json.loads((folder / files.CHECKSUMS).read_text())
  )


def test_what_cannot_be_written_whole_is_not_there(tmp_path):
  file = tmp_path / 'file'
  file.write_text('before')

  def half():
    with files.atomic_write(file) as f:
      f.write(b'half')
      raise RuntimeError('in between')

  with pytest.raises(RuntimeError, match='in between'):
    half()
  assert [f.name for f in tmp_path.iterdir()] == ['file']
  assert file.read_text() == 'before'


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
  """A finished run that keeps every checkpoint: steps 2, 4 to 12."""
  workdir = tmp_path_factory.mktemp('unbroken') / 'run'
  assert main.main(['', *arguments(workdir)]) == 0
  assert runs.steps_saved(workdir) == list(range(2, STEPS + 1, 2))
  return workdir


@pytest.fixture
def workdir(unbroken, tmp_path):
  """A copy of it, to be damaged."""
  shutil.copytree(unbroken, tmp_path / 'run')
  return tmp_path / 'run'


def arguments(workdir, *overrides):
  return runs.arguments(workdir, KEEP_ALL, *overrides, steps=STEPS)


def sampling(workdir, *overrides):
  return arguments(workdir, '--mode=sample', '--config.sampling.seeds=0-3', *overrides)


def damage(workdir, step, harm=overwrite, sealed=True):
  """Harms the largest file of the arrays of a checkpoint; without the seal, all of them.

  OCDBT packs arrays and superseded nodes into files by the timing of its writes, so that any one
  of them, or half of it, may hold nothing that is read.
  """
  checkpoint = workdir / 'checkpoints' / str(step)
  data = [f for f in (checkpoint / 'state').rglob('*') if f.parent.name == 'd']
  data.sort(key=lambda f: f.stat().st_size)
  for file in data[-1:] if sealed else data:
    harm(file)
  if not sealed:
    (checkpoint / files.CHECKSUMS).unlink()


def assert_ends_like(unbroken, workdir):
  runs.assert_same_bits(runs.arrays(workdir, STEPS), runs.arrays(unbroken, STEPS))
  losses = [[row['loss'] for row in runs.metrics(w)] for w in (workdir, unbroken)]
  assert losses[0] == losses[1]
  assert len(losses[0]) == STEPS


@pytest.mark.parametrize('sealed', [True, False])
@pytest.mark.parametrize('harm', [overwrite, truncate, os.unlink])
def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(
  harm, sealed, unbroken, workdir, capsys
):
  damage(workdir, STEPS, harm, sealed)
  assert main.main(['', *arguments(workdir)]) == 0
  error = capsys.readouterr().err
  assert f'checkpoint {STEPS} is damaged (' in error
  assert f'resumed from step {STEPS - 2}' in error
  assert_ends_like(unbroken, workdir)
  (aside,) = (workdir / 'damaged').iterdir()
  assert aside.name.startswith(f'{STEPS}-')
  assert (aside / 'state').is_dir()
  assert files.find_damage(workdir / 'checkpoints' / str(STEPS)) == ''  # the new one


def test_training_passes_over_several_damaged_checkpoints(unbroken, workdir, capsys):
  for step, harm in ((12, truncate), (10, overwrite), (8, change)):
    damage(workdir, step, harm)
  assert main.main(['', *arguments(workdir)]) == 0
  assert 'resumed from step 6' in capsys.readouterr().err
  assert_ends_like(unbroken, workdir)
  aside = sorted(f.name.split('-')[0] for f in (workdir / 'damaged').iterdir())
  assert aside == ['10', '12', '8']


def test_samples_are_of_the_checkpoint_before_a_damaged_one(workdir, capsys):
  damage(workdir, STEPS)
  assert main.main(['', *sampling(workdir)]) == 0
  error = capsys.readouterr().err
  assert f'checkpoint {STEPS} is damaged (state/' in error
  assert f'4 samples of step {STEPS - 2} ' in error
  assert not (workdir / 'damaged').exists()  # a mode that only reads leaves it where it is
  assert runs.steps_saved(workdir)[-1] == STEPS


@pytest.mark.parametrize('harm', [overwrite, truncate, os.unlink])
def test_what_is_written_after_the_seal_is_not_needed(harm, workdir, capsys):
  harm(workdir / 'checkpoints' / str(STEPS) / checkpoint.WRITTEN_LAST)
  assert main.main(['', *sampling(workdir)]) == 0
  assert f'4 samples of step {STEPS} ' in capsys.readouterr().err


def test_a_damaged_checkpoint_that_is_asked_for_is_refused(workdir, capsys):
  damage(workdir, 8)
  assert main.main(['', *sampling(workdir, '--config.checkpoint.load=8')]) == 2
  error = capsys.readouterr().err
  assert 'checkpoint 8 is damaged (' in error
  assert 'of the checkpoints [8] none is intact' in error
  assert not (workdir / 'samples').exists()


def test_where_all_are_damaged_nothing_is_done(workdir, capsys):
  for step in runs.steps_saved(workdir):
    damage(workdir, step)
  before = sorted(workdir.rglob('*'))
  for args in (arguments(workdir), sampling(workdir)):
    assert main.main(['', *args]) == 2
    error = capsys.readouterr().err
    assert f'--workdir={workdir}: of the checkpoints [2, 4, 6, 8, 10, 12] none is intact' in error
    assert 'Traceback' not in error
  assert sorted(workdir.rglob('*')) == before


@pytest.fixture
def disk(tmp_path):
  """A function that mounts a file system of so many bytes, or makes it larger; and where."""
  place = tmp_path / 'disk'
  place.mkdir()

  def mount(size):
    mounted = place.is_mount()
    how = f'remount,size={size}' if mounted else f'size={size}'
    done = subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', how, 'tmpfs', str(place)], capture_output=True, text=True
    )
    if done.returncode:
      pytest.skip(f'a small disk cannot be mounted here: {done.stderr.strip()}')

  yield mount, place
  if place.is_mount():
    subprocess.run(['umount', '-l', str(place)], check=True)


def test_a_full_disk_costs_no_checkpoint_that_was_saved(unbroken, disk):
  mount, place = disk
  taken = subprocess.run(
    ['du', '-s', '-B1', str(unbroken / 'checkpoints' / '2')], capture_output=True, check=True
  )
  room = int(taken.stdout.split()[0])
  mount(room * 7 // 2)  # two or three checkpoints and a part of one
  workdir = place / 'run'
  failed = runs.command(*arguments(workdir))
  assert failed.returncode == 1, failed.stderr
  # Said once; what else there is, tensorstore's threads print, perhaps before it on the same line.
  assert failed.stderr.count(f'error: {workdir}: the disk is full; ') == 1, failed.stderr
  saved = runs.steps_saved(workdir)
  assert saved
  assert saved[-1] < STEPS
  for step in saved:
    runs.assert_same_bits(runs.arrays(workdir, step), runs.arrays(unbroken, step))

  again = runs.command(*arguments(workdir))  # not before there is room
  assert again.returncode == 1, again.stderr
  assert 'the disk is full' in again.stderr
  before, saved = saved, runs.steps_saved(workdir)  # one more may have found room
  assert set(before) <= set(saved)

  mount(room * 99)
  done = runs.command(*arguments(workdir))
  assert done.returncode == 0, done.stderr
  assert f'resumed from step {saved[-1]}' in done.stderr
  assert_ends_like(unbroken, workdir)
  assert {f.name for f in workdir.iterdir()} == {f.name for f in unbroken.iterdir()}
  assert runs.steps_saved(workdir) == runs.steps_saved(unbroken)


@pytest.mark.parametrize('number', files.DISK_FULL)
def test_no_room_is_told_wherever_it_was_said(number):
  first = ValueError(f'tensorstore: {os.strerror(number)}: some/file')
  last = RuntimeError('waited for the others in vain')
  last.__context__ = first
  with pytest.raises(OSError, match=os.strerror(number)) as told, files.raising_disk_full():
    raise last
  assert told.value.errno == number


def test_other_errors_are_not_taken_for_a_full_disk():
  with pytest.raises(RuntimeError, match='another error'), files.raising_disk_full():
    raise RuntimeError('another error')


def test_a_second_run_in_a_workdir_is_refused(tmp_path):
  workdir = tmp_path / 'run'
  args = runs.arguments(workdir, steps=100_000, save_every=100_000)
  with runs.started(args, stderr=subprocess.DEVNULL) as process:
    until(lambda: last_step(workdir) >= 1, process)
    second = runs.command(*args)
    assert second.returncode == 2, second.stderr
    assert f'--workdir={workdir}: another run is training there' in second.stderr
    assert f'(process {process.pid} on ' in second.stderr
    assert process.poll() is None
  with lock.exclusive(workdir):  # it went with the process
    assert f'process {os.getpid()} on ' in (workdir / lock.HOLDER).read_text()


def test_runs_and_jobs_that_are_killed_end_like_unbroken_ones(tmp_path):
  assert fault_injection.differences(tmp_path, kills=4, seed=0) == []
