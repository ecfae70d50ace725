"""IDX files as MNIST's relatives ship them, and Fashion-MNIST inside the package."""

import gzip
import lzma
import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdm_jax.data import idx, sources
from gdm_jax.runtime.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 4, 6), dtype=np.uint8)
LABELS = (np.arange(12) % 3).astype(np.uint8)
SHAPE = (4, 6, 1)


def encoded(array, code=8):
  head = bytes([0, 0, code, array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape)
  return head + array.tobytes()


def write(folder, prefix='', compress='', images=IMAGES, labels=LABELS, split='train'):
  folder.mkdir(exist_ok=True)
  pack = {'': bytes, '.gz': gzip.compress, '.xz': lzma.compress}[compress]
  (folder / f'{prefix}{split}-images-idx3-ubyte{compress}').write_bytes(pack(encoded(images)))
  if labels is not None:
    (folder / f'{prefix}{split}-labels-idx1-ubyte{compress}').write_bytes(pack(encoded(labels)))
  return folder


def load(folder, split='train', shape=SHAPE):
  return sources.load(f'idx:{folder}', split, shape)


@pytest.mark.parametrize('compress', ['', '.gz', '.xz'])
def test_reads_images_and_labels(tmp_path, compress):
  source = load(write(tmp_path / 'set', compress=compress))
  np.testing.assert_array_equal(source.x, IMAGES[..., None])
  np.testing.assert_array_equal(source.label, LABELS)
  assert (source.num_classes, source.shape, source.x.dtype) == (3, SHAPE, np.uint8)


@pytest.mark.parametrize('test', ['t10k', 'test'])
def test_the_test_split_and_slices(tmp_path, test):
  folder = write(write(tmp_path / 'set'), split=test, images=IMAGES[:5], labels=LABELS[:5])
  assert [len(load(folder, split)) for split in ('train', 'test', 'test[:40%]')] == [12, 5, 2]
  with pytest.raises(DataError, match='has only train and test'):
    load(folder, 'validation')


def test_dots_in_names_and_no_labels(tmp_path):
  folder = write(tmp_path / 'set', labels=None)
  (folder / 'train-images-idx3-ubyte').rename(folder / 'train-images.idx3-ubyte')
  assert load(folder).num_classes == 0


def test_a_folder_of_several_sets_needs_the_name_of_one(tmp_path):
  folder = write(write(tmp_path / 'set', 'emnist-letters-'), 'emnist-digits-', images=IMAGES[::-1])
  with pytest.raises(DataError, match=f'several sets; give one of idx:{folder}/emnist-digits-, '):
    load(folder)
  np.testing.assert_array_equal(load(folder / 'emnist-letters').x, IMAGES[..., None])


def test_images_are_averaged_to_a_smaller_shape(tmp_path):
  source = load(write(tmp_path / 'set'), shape=(2, 3, 1))
  expected = IMAGES.reshape(12, 2, 2, 3, 2).mean((2, 4))
  np.testing.assert_allclose(source.x[..., 0], expected, atol=0.5)
  with pytest.raises(DataError, match=re.escape('data.shape=(3, 3, 1) is what the model expects')):
    load(tmp_path / 'set', shape=(3, 3, 1))


def problem_of(folder, content, name='train-images-idx3-ubyte'):
  (folder / name).write_bytes(content)
  with pytest.raises(DataError) as caught:
    load(folder)
  message = str(caught.value)
  assert '\n' not in message
  assert message.startswith(f"data.name='idx:{folder}': ")
  return message


def test_what_is_wrong_is_said(tmp_path):
  folder = write(tmp_path / 'set')
  whole = encoded(IMAGES)
  assert 'says 12 x 4 x 6 values = 288, but holds 287' in problem_of(folder, whole[:-1])
  assert 'but holds 289' in problem_of(folder, whole + b'?')
  for content in (b'', whole[:3], whole[:9], b'PNG' + whole[3:], b'\0\0\7' + whole[3:]):
    assert 'is no IDX file; it begins with' in problem_of(folder, content)
  floats = encoded(IMAGES.astype('>f4'), 13)
  assert 'holds float32; images and labels are uint8' in problem_of(folder, floats)
  assert 'has the shape (12,), not of images' in problem_of(folder, encoded(LABELS))
  assert 'has the shape (0, 4, 6)' in problem_of(folder, encoded(IMAGES[:0]))
  (folder / 'train-images-idx3-ubyte').write_bytes(whole)
  few = encoded(LABELS[:9])
  assert 'has (9,), but there are 12 images' in problem_of(folder, few, 'train-labels-idx1-ubyte')


@pytest.mark.parametrize('name', ['idx:{}/nowhere/else', 'idx:{}', 'idx'])
def test_a_missing_folder_or_file_is_said(tmp_path, name):
  with pytest.raises(DataError, match=r'there is no|is unknown'):
    sources.load(name.format(tmp_path), 'train', SHAPE)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(['', '.gz', '.xz']), st.data())
def test_damage_is_a_clear_error_or_harmless(tmp_path_factory, compress, data):
  folder = write(tmp_path_factory.mktemp('idx') / 'set', compress=compress)
  file = folder / f'train-images-idx3-ubyte{compress}'
  content = bytearray(file.read_bytes())
  if data.draw(st.booleans()):
    del content[data.draw(st.integers(0, len(content) - 1)) :]
  else:
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
  file.write_bytes(content)
  try:
    source = load(folder)
  except DataError as error:
    message = str(error)
  else:
    message = ''
    assert source.x.shape == (12, *SHAPE)
  assert '\n' not in message


def test_fashion_mnist_is_in_the_package():
  train, test = (sources.load('fashion', split, (28, 28, 1)) for split in ('train', 'test'))
  assert (len(train), len(test), train.num_classes, train.shape) == (10_000, 2_000, 10, (28, 28, 1))
  # Of the published training set the first labels, and the mean of all pixels.
  np.testing.assert_array_equal(train.label[:10], [9, 0, 0, 3, 0, 2, 7, 2, 5, 5])
  np.testing.assert_array_equal(np.unique(test.label), np.arange(10))
  assert 72 < train.x.mean() < 74
  assert 'Permission is hereby granted' in (idx.FASHION_MNIST / 'LICENSE').read_text()
