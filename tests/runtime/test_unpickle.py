"""Tensors out of pickles that PyTorch and numpy wrote, and nothing else out of any."""

import io
import os
import pickle
import resource
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdm_jax.runtime.unpickle import UnsafePickle, read_numpy, read_torch

GOLDEN = Path(__file__).parents[1] / 'golden'
FILES = {name: (GOLDEN / f'{name}.pth').read_bytes() for name in ('tensors', 'tensors_legacy')}
"""Written by torch 2.13 in its two formats."""

TREE = {'a': {'b': np.arange(6.0).reshape(2, 3)}, 'c': np.float32([1])}


@pytest.mark.parametrize('name', FILES)
def test_reads_what_torch_wrote(name):
  tensors = read_torch(FILES[name])
  assert tensors.keys() == {'a.weight', 'a.view', 'n', 'half'}
  np.testing.assert_array_equal(tensors['a.weight'], np.arange(6, dtype='f4').reshape(2, 3))
  np.testing.assert_array_equal(tensors['a.view'], np.arange(12).reshape(3, 4).T[1:])
  assert tensors['n'] == 7
  assert tensors['n'].dtype == np.int64
  np.testing.assert_array_equal(tensors['half'], np.ones(3, 'f2'))


@pytest.mark.parametrize('protocol', [3, 4])
def test_reads_what_numpy_wrote(protocol):
  tree = read_numpy(pickle.dumps(TREE, protocol))
  np.testing.assert_array_equal(tree['a']['b'], TREE['a']['b'])
  np.testing.assert_array_equal(tree['c'], TREE['c'])


class Command:
  """Makes a folder when it is unpickled."""

  def __init__(self, folder):
    self.folder = str(folder)

  def __reduce__(self):
    return os.mkdir, (self.folder,)


def in_zip(content):
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w') as archive:
    archive.writestr('archive/data.pkl', content)
  return stream.getvalue()


def test_executes_nothing(tmp_path):
  folder = tmp_path / 'made'
  content = pickle.dumps(OrderedDict(a=Command(folder)))
  for read, file in ((read_torch, content), (read_torch, in_zip(content)), (read_numpy, content)):
    with pytest.raises(
      UnsafePickle, match=r'names (posix|nt)\.mkdir, which is no part of a tensor'
    ):
      read(file)
  assert not folder.exists()
  pickle.loads(content)
  assert folder.exists()  # so the file was a dangerous one


@pytest.mark.parametrize('value', [[1, 2], {'a': 'text'}, 7])
def test_other_contents_are_refused(value):
  with pytest.raises(ValueError, match='something else than tensors by name'):
    read_torch(in_zip(pickle.dumps(value)))


@pytest.mark.parametrize(
  'content',
  [
    b'\x80\x02}r\xff\xff\xff\x7f.',  # remembers object number 2^31 - 1
    b'\x80\x02p4294967295\n.',
    b'\x80\x05\x96' + (2**40).to_bytes(8, 'little') + b'x.',  # 2^40 bytes follow, it says
    b'\x80\x04\x8e' + (2**40).to_bytes(8, 'little') + b'x.',
    b'\x80\x02T\xff\xff\xff\x7fx.',
  ],
)
def test_a_length_that_is_not_true_allocates_nothing(content):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  for read, file in ((read_torch, content), (read_torch, in_zip(content)), (read_numpy, content)):
    with pytest.raises(ValueError, match='damaged'):
      read(file)
  kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
  assert kibibytes < 100 * 1024


def test_arrays_of_objects_are_refused():
  with pytest.raises(ValueError, match='dtype object'):
    read_numpy(pickle.dumps(np.array([None, 'text'], object)))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([*FILES]), st.data())
def test_damage_is_a_clear_error_or_harmless(name, data):
  content = bytearray(FILES[name])
  if data.draw(st.booleans()):
    del content[data.draw(st.integers(0, len(content) - 1)) :]
  else:
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
  try:
    tensors = read_torch(bytes(content))
  except ValueError:
    return
  assert all(isinstance(tensor, np.ndarray) for tensor in tensors.values())
