"""Files that are written whole or not at all, by several programs at once."""

import os
import threading

import pytest

from gdm_jax import main
from gdm_jax.runtime import distributed, files, paths
from gdm_jax.runtime.errors import ConfigError
from tests.support import runs


def test_several_writers_of_one_file_do_no_harm_to_one_another(tmp_path):
  file = tmp_path / 'file'
  contents = [bytes([n]) * 10_000 for n in range(8)]

  def write(content):
    for _ in range(20):
      with files.atomic_write(file, durable=False) as f:
        f.write(content[:5000])
        f.write(content[5000:])

  threads = [threading.Thread(target=write, args=(content,)) for content in contents]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert file.read_bytes() in contents
  assert [f.name for f in tmp_path.iterdir()] == ['file']


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
  happened = []
  fsync, replace = os.fsync, type(tmp_path).replace
  monkeypatch.setattr(os, 'fsync', lambda fd: happened.append('fsync') or fsync(fd))
  monkeypatch.setattr(
    type(tmp_path), 'replace', lambda self, to: happened.append('rename') or replace(self, to)
  )
  with files.atomic_write(tmp_path / 'file') as f:
    f.write(b'all')
  assert happened == ['fsync', 'rename']


def test_only_old_temporary_files_are_left_over(tmp_path):
  old, new = tmp_path / '.a.png.1.tmp', tmp_path / '.b.png.2.tmp'
  for file in (old, new):
    file.touch()
  os.utime(old, (0, 0))
  files.remove_left_over(tmp_path)
  assert [f.name for f in tmp_path.iterdir()] == ['.b.png.2.tmp']


def test_the_home_folder_is_expanded_everywhere(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  config = f'--config={runs.ROOT}/configs/digits.py'
  command = main.parse(['', config, '--workdir=~/x', '--config.sampling.folder=~/y'])
  assert command.workdir == tmp_path / 'x'
  assert command.config.sampling.folder == f'{tmp_path}/y'
  (tmp_path / 'mine.py').write_text((runs.ROOT / 'configs' / 'default.py').read_text())
  assert main.parse(['', '--config=~/mine.py']).config.seed == 0


@pytest.mark.parametrize(
  'argument',
  ['--workdir=gs://bucket/run', *(f'--config.{key}=s3://bucket/x' for key in paths.KEYS)],
)
def test_addresses_are_refused_before_anything_is_written(argument, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  assert main.main(['', f'--config={runs.ROOT}/configs/digits.py', argument]) == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1
  assert argument.removeprefix('--config.').split('=')[1] in error
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('address', ['host', 'host:', 'host:port', ':'])
def test_a_coordinator_needs_a_port(address):
  with pytest.raises(ConfigError, match='needs a port, such as host:1234'):
    distributed.join(distributed.Cluster(address, 2, 0))


def test_nothing_is_joined_that_shall_be_kept_apart(monkeypatch):
  monkeypatch.setenv('SLURM_PROCID', '0')
  monkeypatch.setenv('SLURM_STEP_NUM_TASKS', '8')
  distributed.join(distributed.Cluster(detect=False))
  argv = ['', f'--config={runs.ROOT}/configs/digits.py', '--nodistributed']
  assert main.parse(argv).cluster[-1] is False
  assert main.parse(argv[:-1]).cluster[-1] is None


def damaged_config(unbroken, tmp_path, content):
  workdir = tmp_path / 'run'
  (workdir / 'checkpoints').parent.mkdir()
  for name in unbroken.iterdir():
    (workdir / name.name).symlink_to(name)
  (workdir / 'config.json').unlink()
  (workdir / 'config.json').write_bytes(content)
  return workdir


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('trained') / 'run'
  assert main.main(['', *runs.arguments(workdir, steps=2)]) == 0
  return workdir


@pytest.mark.parametrize('content', [b'', b'{"model": ', b'[]', b'\0' * 100])
def test_a_damaged_config_is_rebuilt_from_the_checkpoint(trained, tmp_path, content, capsys):
  workdir = damaged_config(trained, tmp_path, content)
  args = runs.arguments(workdir, '--mode=sample', '--config.sampling.seeds=0-3', steps=2)
  assert main.main(['', *args]) == 0
  assert (
    'config.json is damaged: written again from the newest checkpoint' in capsys.readouterr().err
  )
  assert (workdir / 'config.json').read_text() == (trained / 'config.json').read_text()


def test_a_damaged_config_without_a_checkpoint_is_named(tmp_path, capsys):
  workdir = tmp_path / 'run'
  workdir.mkdir()
  (workdir / 'config.json').write_text('{')
  assert main.main(['', *runs.arguments(workdir, '--mode=sample')]) == 2
  assert 'config.json is damaged, and no checkpoint knows its content' in capsys.readouterr().err


def test_seeds_have_a_range(tmp_path, capsys):
  for key in ('seed', 'likelihood.seed'):
    assert main.main(['', *runs.arguments(tmp_path, f'--config.{key}={2**32}')]) == 2
    assert f'{key} = 4294967296 must be below 2**32' in capsys.readouterr().err


def test_statistics_that_cannot_fit_are_refused_with_the_number(tmp_path, capsys):
  overrides = '--config.data.shape=256,256,3', '--config.evaluation.features=pixels'
  assert main.main(['', *runs.arguments(tmp_path, *overrides, '--mode=reference')]) == 2
  error = capsys.readouterr().err
  assert 'evaluation.features = pixels: a covariance of 196,608 pixels takes 1,152 GiB' in error
