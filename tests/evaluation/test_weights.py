"""The conversion of published weights, and every way in which a converted file can be wrong."""

import dataclasses
import hashlib
import io
import pickle
import re
import tarfile
import zipfile

import jax
import numpy as np
import pytest

from gdm_jax.evaluation import weights
from gdm_jax.runtime.errors import ConfigError

FILE = b'a file of weights'
DIGEST = hashlib.sha256(FILE).hexdigest()


@pytest.fixture
def published(monkeypatch, tmp_path):
  """A file on disk that is, for all networks, the published one."""
  for name, entry in weights.PUBLISHED.items():
    entry = dataclasses.replace(entry, sha256=DIGEST, member='')
    monkeypatch.setitem(weights.PUBLISHED, name, entry)
  file = tmp_path / 'published.pth'
  file.write_bytes(FILE)
  return file


def install(monkeypatch, name, arrays):
  """A network whose published file holds these arrays."""

  def read(content):
    assert content == FILE
    return arrays

  entry = dataclasses.replace(weights.PUBLISHED[name], read=read)
  monkeypatch.setitem(weights.PUBLISHED, name, entry)


def command(*argv):
  return weights.main(['weights', *map(str, argv)])


@pytest.mark.parametrize('name', weights.NETWORKS)
def test_converted_weights_load(monkeypatch, tmp_path, published, name):
  network, out = weights.NETWORKS[name], tmp_path / 'out.npz'
  shapes = network.reference_shapes()
  arrays = {n: np.full(shape, i, np.float64) for i, (n, shape) in enumerate(shapes.items())}
  others = {'classifier.0.bias': np.zeros(9), 'Conv2d_1a_3x3.bn.num_batches_tracked': np.array(7)}
  install(monkeypatch, name, arrays | others)
  assert command(name, published, out) == 0
  with np.load(out) as archive:
    assert {*archive.files} == {*shapes, 'sha256'}
    assert {archive[n].dtype for n in shapes} == {np.dtype('float32')}
    assert str(archive['sha256']) == DIGEST
  loaded = weights.load(name, str(out))
  out.unlink()
  jax.tree.map(np.testing.assert_array_equal, loaded, network.params_from_reference(arrays))


def test_another_file_is_refused_before_it_is_read(monkeypatch, tmp_path, capsys):
  install(monkeypatch, 'inception', None)
  file, out = tmp_path / 'other.pth', tmp_path / 'out.npz'
  file.write_bytes(b'other weights')
  assert command('inception', file, out) == 2
  message = capsys.readouterr().err
  assert message.count('\n') == 1
  assert hashlib.sha256(b'other weights').hexdigest() in message
  assert weights.PUBLISHED['inception'].sha256 in message
  assert weights.PUBLISHED['inception'].get in message
  assert not out.exists()


def archived(kind, name, content):
  stream = io.BytesIO()
  if kind == 'zip':
    with zipfile.ZipFile(stream, 'w') as archive:
      archive.writestr(name, content)
  else:
    with tarfile.open(fileobj=stream, mode='w:gz') as archive:
      info = tarfile.TarInfo(name)
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  return stream.getvalue()


@pytest.mark.parametrize('kind', ['zip', 'tar'])
def test_the_file_may_be_inside_a_package(monkeypatch, tmp_path, kind):
  network = weights.NETWORKS['vgg16']
  tree = {}
  for name, shape in network.reference_shapes().items():
    module, layer, leaf = name.split('.')
    tree.setdefault(module, {}).setdefault(layer, {})[leaf] = np.ones(shape, np.float32)
  package = archived(kind, 'package/weights.ckpt', pickle.dumps(tree, protocol=3))
  entry = dataclasses.replace(
    weights.PUBLISHED['vgg16'],
    sha256=hashlib.sha256(package).hexdigest(),
    member='package/weights.ckpt',
  )
  monkeypatch.setitem(weights.PUBLISHED, 'vgg16', entry)
  file, out = tmp_path / 'package', tmp_path / 'out.npz'
  file.write_bytes(package)
  assert command('vgg16', file, out) == 0
  assert all((leaf == 1).all() for leaf in jax.tree.leaves(weights.load('vgg16', str(out))))


def test_a_failed_write_leaves_what_was_there(monkeypatch, tmp_path, published, capsys):
  def full(file, **_):
    file.write(b'half')
    raise OSError('disk full')

  install(monkeypatch, 'vgg19', {})
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
  assert all(entry.get in printed for entry in weights.PUBLISHED.values())


@pytest.mark.parametrize(
  ('argv', 'problem'),
  [
    (('vgg', 'a.pth', 'b.npz'), 'vgg.*lite0 or vgg16 or vgg19 or inception'),
    (('vgg19', 'a.pth'), 'or inception, FILE and OUT.npz'),
    (('vgg19', 'nowhere.pth', 'b.npz'), 'No such file.*nowhere.pth'),
  ],
)
def test_a_wrong_command_is_one_line(argv, problem, capsys):
  assert command(*argv) == 2
  assert re.fullmatch(f'error: .*{problem}.*\n', capsys.readouterr().err)


def test_digests_begin_as_the_published_names_end():
  for entry in weights.PUBLISHED.values():
    assert re.fullmatch('[0-9a-f]{64}', entry.sha256)
    assert entry.file in entry.get or entry.member
    assert not entry.file.endswith('.pth') or entry.file.endswith(f'-{entry.sha256[:8]}.pth')


def problem_of(file, name='vgg19'):
  with pytest.raises(ConfigError) as caught:
    weights.load(name, str(file))
  message = str(caught.value)
  assert message.startswith(f'evaluation.weights = {str(file)!r} ')
  assert weights.PUBLISHED[name].get in message
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
