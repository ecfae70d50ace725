"""The conversion of published weights, and every way in which a converted file can be wrong."""

import dataclasses
import hashlib
import re
import sys
import types

import jax
import numpy as np
import pytest

from gdm_jax.evaluation import weights
from gdm_jax.runtime.errors import ConfigError

FILE = b'a file of weights'
DIGEST = hashlib.sha256(FILE).hexdigest()


@pytest.fixture
def published(monkeypatch, tmp_path):
  """A file on disk that is, for both networks, the published one."""
  for name, entry in weights.PUBLISHED.items():
    monkeypatch.setitem(weights.PUBLISHED, name, dataclasses.replace(entry, sha256=DIGEST))
  file = tmp_path / 'published.pth'
  file.write_bytes(FILE)
  return file


class Tensor:
  """As torch's parameters are: no array before they are detached."""

  def __init__(self, array):
    self._array = array

  def detach(self):
    return types.SimpleNamespace(numpy=lambda: self._array)


def install_torch(monkeypatch, arrays):
  """A torch that reads these arrays from any file."""

  def load(path, weights_only, map_location):
    assert path.read_bytes() == FILE
    assert weights_only is True
    assert map_location == 'cpu'
    return {n: Tensor(a) for n, a in arrays.items()}

  monkeypatch.setitem(sys.modules, 'torch', types.SimpleNamespace(load=load))


def command(*argv):
  return weights.main(['weights', *map(str, argv)])


@pytest.mark.parametrize('name', ['inception', 'vgg19'])
def test_converted_weights_load(monkeypatch, tmp_path, published, name):
  network, out = weights.NETWORKS[name], tmp_path / 'out.npz'
  shapes = network.reference_shapes()
  arrays = {n: np.full(shape, i, np.float64) for i, (n, shape) in enumerate(shapes.items())}
  others = {'classifier.0.bias': np.zeros(9), 'Conv2d_1a_3x3.bn.num_batches_tracked': np.array(7)}
  install_torch(monkeypatch, arrays | others)
  assert command(name, published, out) == 0
  with np.load(out) as archive:
    assert {*archive.files} == {*shapes, 'sha256'}
    assert {archive[n].dtype for n in shapes} == {np.dtype('float32')}
    assert str(archive['sha256']) == DIGEST
  loaded = weights.load(name, str(out))
  out.unlink()
  jax.tree.map(np.testing.assert_array_equal, loaded, network.params_from_reference(arrays))


def test_another_file_is_refused_before_torch_reads_it(monkeypatch, tmp_path, capsys):
  monkeypatch.setitem(sys.modules, 'torch', None)  # importing it would be another error
  file, out = tmp_path / 'other.pth', tmp_path / 'out.npz'
  file.write_bytes(FILE)
  assert command('inception', file, out) == 2
  message = capsys.readouterr().err
  assert message.count('\n') == 1
  assert DIGEST in message
  assert weights.PUBLISHED['inception'].sha256 in message
  assert not out.exists()


def test_without_torch_says_how_to_get_it(monkeypatch, tmp_path, published, capsys):
  monkeypatch.setitem(sys.modules, 'torch', None)
  assert command('vgg19', published, tmp_path / 'out.npz') == 2
  message = capsys.readouterr().err
  assert message.count('\n') == 1
  assert 'pip install torch' in message
  assert 'out.npz' in message


def test_a_failed_write_leaves_what_was_there(monkeypatch, tmp_path, published, capsys):
  def full(file, **_):
    file.write(b'half')
    raise OSError('disk full')

  install_torch(monkeypatch, {})
  monkeypatch.setattr(np, 'savez', full)
  out = tmp_path / 'out.npz'
  out.write_bytes(b'old')
  assert command('vgg19', published, out) == 2
  assert capsys.readouterr().err == 'error: disk full\n'
  assert out.read_bytes() == b'old'
  assert {*tmp_path.iterdir()} == {published, out}


@pytest.mark.parametrize('argv', [(), ('--help',), ('vgg19', '-h')])
def test_help_explains(argv, capsys):
  assert command(*argv) == 0
  printed = capsys.readouterr().out
  assert weights.__doc__ in printed
  assert all(entry.url in printed for entry in weights.PUBLISHED.values())


@pytest.mark.parametrize(
  ('argv', 'problem'),
  [
    (('vgg16', 'a.pth', 'b.npz'), 'vgg16.*inception or vgg19'),
    (('vgg19', 'a.pth'), 'inception or vgg19 FILE.pth OUT.npz'),
    (('vgg19', 'nowhere.pth', 'b.npz'), 'No such file.*nowhere.pth'),
  ],
)
def test_a_wrong_command_is_one_line(argv, problem, capsys):
  assert command(*argv) == 2
  assert re.fullmatch(f'error: .*{problem}.*\n', capsys.readouterr().err)


def test_digests_begin_as_the_published_names_end():
  for entry in weights.PUBLISHED.values():
    assert re.fullmatch('[0-9a-f]{64}', entry.sha256)
    assert entry.url.endswith(f'-{entry.sha256[:8]}.pth')


def problem_of(file, name='vgg19'):
  with pytest.raises(ConfigError) as caught:
    weights.load(name, str(file))
  message = str(caught.value)
  assert message.startswith(f'evaluation.weights = {str(file)!r} ')
  assert weights.PUBLISHED[name].url in message
  assert f'python -m gdm_jax.evaluation.weights {name} ' in message
  assert '\n' not in message
  return message


def test_no_file_is_refused(tmp_path):
  assert 'must be the weights of inception' in problem_of('', 'inception')
  assert 'No such file' in problem_of(tmp_path / 'nowhere.npz')
  assert 'directory' in problem_of(tmp_path)


def test_a_damaged_file_is_refused(tmp_path, published):
  file = tmp_path / 'out.npz'
  np.savez(file, sha256=DIGEST, a=np.arange(1000.0))
  whole = file.read_bytes()
  assert 'does not fit' in problem_of(file)
  middle = len(whole) // 2
  for damaged in (
    whole[:middle] + b'????' + whole[middle + 4 :],
    whole[:middle],
    whole[:-1],
    b'',
    b'no archive',
  ):
    file.write_bytes(damaged)
    assert 'no npz file, or damaged' in problem_of(file)


def test_a_single_array_is_refused(tmp_path):
  np.save(tmp_path / 'out.npy', np.zeros(3))
  assert 'no npz file' in problem_of(tmp_path / 'out.npy')


class Trap:
  """Fails the test when it is unpickled."""

  def __reduce__(self):
    return pytest.fail, ('unpickled',)


def test_nothing_is_unpickled(tmp_path, published):
  file = tmp_path / 'out.npz'
  np.savez(file, sha256=DIGEST, a=np.array([Trap()], object))
  with pytest.raises(pytest.fail.Exception, match='unpickled'):
    np.load(file, allow_pickle=True)['a']
  problem_of(file)


def test_weights_of_unknown_or_other_origin_are_refused(tmp_path):
  file = tmp_path / 'out.npz'
  np.savez(file, a=np.zeros(3))
  assert 'SHA-256 unknown' in problem_of(file)
  other = weights.PUBLISHED['vgg19'].sha256
  np.savez(file, sha256=other, a=np.zeros(3))
  assert f'SHA-256 {other}' in problem_of(file, 'inception')


def test_wrong_parameters_are_refused(tmp_path, published):
  file = tmp_path / 'out.npz'
  np.savez(file, sha256=DIGEST)
  assert "does not fit: parameter 'features.0.weight' is missing" in problem_of(file)
  np.savez(file, **{'sha256': DIGEST, 'features.0.weight': 'text'})
  assert 'does not fit' in problem_of(file)
