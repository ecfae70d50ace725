"""EDM's pickles become folders of parameters; what else they hold is never executed."""

import builtins
import pickle

import numpy as np
import pytest

from gdm_jax.models import from_edm, naming
from gdm_jax.runtime import exported
from gdm_jax.runtime.unpickle import UnsafePickle, read_edm
from tests.models.test_ddpmpp import golden
from tests.support import edm_pickle

OPTIONS = {'model_channels': 8, 'channel_mult': [1, 2], 'num_blocks': 1, 'attn_resolutions': [4]}


@pytest.fixture(scope='module')
def weights():
  """Those of a network with labels, by EDM's names."""
  return golden('conditional')[-1]


@pytest.mark.parametrize('name', ['small', 'conditional'])
def test_names_are_the_inverse_of_the_tree(name):
  weights = golden(name)[-1]
  named = naming.to_names('ddpmpp', naming.from_names('ddpmpp', weights))
  assert named.keys() == weights.keys()
  for key, value in weights.items():
    np.testing.assert_array_equal(named[key], value)


def test_other_networks_keep_their_names():
  params = {'block0': {'norm1': {'scale': np.ones(3)}}, 'position': np.zeros(2)}
  named = naming.to_names('group_causal', params)
  assert named.keys() == {'block0.norm1.scale', 'position'}
  assert naming.from_names('group_causal', named).keys() == params.keys()


def test_a_snapshot_becomes_a_folder(weights, tmp_path, capsys):
  file, folder = tmp_path / 'network-snapshot-200000.pkl', tmp_path / 'edm'
  buffers = {'enc.8x8_down.conv0.resample_filter': np.ones((1, 1, 2, 2))}
  file.write_bytes(edm_pickle.dump({**weights, **buffers}, options=OPTIONS))
  assert from_edm.main(['', str(file), str(folder)]) == 0
  assert '--config.model.ddpmpp.multipliers=1,2' in capsys.readouterr().out
  tensors = exported.open_model(str(folder)).tensors()
  assert tensors.keys() == weights.keys()
  for name, value in weights.items():
    np.testing.assert_array_equal(tensors[name], value.astype(np.float32))


def test_source_code_is_not_executed(weights, monkeypatch):
  source = 'import builtins\nbuiltins.executed = True\n'
  monkeypatch.setattr(builtins, 'executed', False, raising=False)
  tensors, options = read_edm(edm_pickle.dump(weights, source, OPTIONS))
  assert not builtins.executed
  assert tensors.keys() == {f'model.{name}' for name in weights}
  assert options == {**OPTIONS, 'sigma_data': 0.5}
  exec(source)
  assert builtins.executed  # so the code was a dangerous one


class Call:
  def __reduce__(self):
    return exec, ('import builtins\nbuiltins.executed = True',)


def test_a_function_that_is_none_of_edms_is_refused(monkeypatch):
  monkeypatch.setattr(builtins, 'executed', False, raising=False)
  with pytest.raises(UnsafePickle, match=r'names builtins\.exec'):
    read_edm(pickle.dumps({'ema': Call()}))
  assert not builtins.executed


def test_other_files_are_one_clear_line(tmp_path, capsys):
  other = edm_pickle.dump({'map_noise.freqs': np.ones(4)})
  code = pickle.dumps({'ema': Call()})
  files = {'noise': b'\x00\x01', 'tree': pickle.dumps({'a': 1}), 'ncsn': other, 'code': code}
  wanted = {'ncsn': 'map_noise.freqs', 'code': 'names builtins.exec'}
  for name, content in files.items():
    file = tmp_path / f'{name}.pkl'
    file.write_bytes(content)
    assert from_edm.main(['', str(file), str(tmp_path / 'out')]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert wanted.get(name, 'no pickle of EDM') in error
  assert not (tmp_path / 'out').exists()
