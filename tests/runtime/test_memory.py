"""What cannot fit is refused by name and number before any work; what runs out says so."""

import re

import jax
import numpy as np
import pytest

from gdm_jax import main, modes
from gdm_jax.runtime import files, memory
from tests.support import runs


@pytest.mark.parametrize(
  ('override', 'problem'),
  [
    ('train.batch=1000000000', 'train.batch = 1,000,000,000: a batch of (8, 8, 1) takes 715 GiB'),
    ('sampling.batch=1000000000', 'sampling.batch = 1,000,000,000: a batch of (8, 8, 1) takes'),
    ('data.shape=(1000000,1000000,1)', 'train.batch = 16: a batch of (1000000, 1000000, 1) takes'),
    ('model.ddpmpp.channels=32768', 'model.ddpmpp = {'),
  ],
)
def test_what_cannot_fit_is_named(override, problem, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(memory, 'host_memory', lambda: 3 * 2**30)
  assert main.main(['', *runs.arguments(tmp_path / 'run', f'--config.{override}')]) == 2
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith(f'error: {problem}')
  assert re.search(r' takes [\d,]+ GiB, and this machine has 3$', error)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('compressed', [False, True])
def test_an_array_larger_than_the_memory_is_not_read(compressed, tmp_path, monkeypatch):
  file = tmp_path / 'x.npz'
  (np.savez_compressed if compressed else np.savez)(file, x=np.zeros(10_000, np.uint8))
  assert len(files.read_arrays(file)['x']) == 10_000
  monkeypatch.setattr(memory, 'host_memory', lambda: 9_000)
  with pytest.raises(files.DamagedFile, match='GiB, and this machine has'):
    files.read_arrays(file)


@pytest.mark.parametrize(
  'error',
  [
    MemoryError('Unable to allocate 37.3 GiB for an array'),
    jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 37 bytes.\nand more'),
  ],
)
def test_running_out_of_memory_is_one_line(error, tmp_path, monkeypatch, capsys):
  def run(*_):
    raise error

  monkeypatch.setattr(modes, 'load', lambda mode: run)
  assert main.main(['', *runs.arguments(tmp_path / 'run')]) == 1
  said = capsys.readouterr().err.splitlines()[-1]
  assert said.startswith('error: out of memory; smaller batches help')
  assert str(error).splitlines()[0] in said
