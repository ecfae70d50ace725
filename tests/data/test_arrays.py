"""Arrays that users bring: damaged, of other types and ranges, with unusual labels."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdm_jax.data import sources
from gdm_jax.runtime.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 4, 6, 3), np.uint8)
FLOATS = RNG.normal(size=(5, 4, 6, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 1, 0])


def load(file, shape=(4, 6, 3)):
  return sources.load(f'npz:{file}', 'train', shape)


def saved(tmp_path, **arrays):
  np.savez(tmp_path / 'mine.npz', **arrays)
  return tmp_path / 'mine.npz'


def test_images_and_labels(tmp_path, capsys):
  source = load(saved(tmp_path, x=IMAGES, label=LABELS))
  assert (len(source), source.num_classes, source.x.dtype) == (5, 3, np.uint8)
  np.testing.assert_array_equal(source[np.array([3, 1])]['x'], IMAGES[[3, 1]])
  assert f'mine.npz: 5 examples (4, 6, 3), uint8 of {IMAGES.min()} to' in capsys.readouterr().err


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_floats_become_float32(tmp_path, dtype):
  assert load(saved(tmp_path, x=FLOATS.astype(dtype))).x.dtype == np.float32


def test_a_single_array(tmp_path):
  np.save(tmp_path / 'mine.npy', IMAGES)
  source = load(tmp_path / 'mine.npy')
  np.testing.assert_array_equal(source.x, IMAGES)
  assert source.num_classes == 0


@pytest.mark.parametrize('label', [LABELS.astype(np.uint8), LABELS.astype(float), 0 * LABELS])
def test_labels_of_other_types(tmp_path, label):
  source = load(saved(tmp_path, x=IMAGES, label=label))
  assert source.label.dtype == np.int32
  assert source.num_classes == (3 if label.any() else 0)  # one class is none


def problem_of(file, shape=(4, 6, 3)):
  with pytest.raises(DataError) as caught:
    load(file, shape)
  message = str(caught.value)
  assert '\n' not in message
  assert str(file) in message
  return message


@pytest.mark.parametrize(
  ('x', 'message'),
  [
    (IMAGES[:, :, 0, 0], "needs an array 'x' of shape [n, *grid, channels]; it holds x (5, 4)"),
    (IMAGES[:0], 'it holds x (0, 4, 6, 3)'),
    (
      IMAGES.astype(np.int64),
      'int64: must be uint8, of 0 to 255, or floats; take x.astype(np.uint8)',
    ),
    (IMAGES > 9, 'bool: must be uint8'),
    (IMAGES.astype(complex), 'complex128: must be uint8, of 0 to 255, or floats'),
    (IMAGES.astype(str), '<U3: must be uint8'),
    (
      IMAGES.astype(np.float32),
      'floats must be of about unit scale; give images of 0 to 255 as uint8',
    ),
    (
      np.where(np.isclose(FLOATS, FLOATS[3, 1, 2, 0]), np.nan, FLOATS),
      'NaN or infinity, first in example 3',
    ),
    (
      np.where(np.isclose(FLOATS, FLOATS[4, 0, 0, 0]), np.inf, FLOATS),
      'NaN or infinity, first in example 4',
    ),
    (0 * IMAGES + 7, "'x' is 7 everywhere"),
  ],
)
def test_values_that_nothing_is_learnt_from(tmp_path, x, message):
  assert message in problem_of(saved(tmp_path, x=x))


@pytest.mark.parametrize(
  ('label', 'message'),
  [
    (LABELS[:4], 'has shape (4,), and there are 5 examples'),
    (LABELS[:, None], 'has shape (5, 1)'),
    (np.array(['cat', 'dog', 'cat', 'cat', 'dog']), "such as 'cat': must be numbers from 0 on"),
    (LABELS - 1, 'is -1 to 1: must be whole numbers from 0'),
    (LABELS + 0.5, 'is 0.5 to 2.5: must be whole numbers'),
    (np.array([0, np.nan, 0, 1, 2]), 'must be whole numbers'),
    (LABELS * 1_000_000, 'is 0 to 2e+06: must be whole numbers from 0 to classes - 1'),
  ],
)
def test_labels_that_are_no_classes(tmp_path, label, message):
  assert message in problem_of(saved(tmp_path, x=IMAGES, label=label))


def test_other_contents(tmp_path):
  assert "needs an array 'x'" in problem_of(saved(tmp_path, y=IMAGES))
  assert 'it holds nothing' in problem_of(saved(tmp_path))
  assert 'cannot be read' in problem_of(saved(tmp_path, x=np.array([{}, 1], object)))
  file = tmp_path / 'mine.npz'
  for content in (b'', b'not an archive', b'PK\x03\x04'):
    file.write_bytes(content)
    assert 'cannot be read' in problem_of(file)
  assert 'No such file' in problem_of(tmp_path / 'nowhere.npz')
  assert 'cannot be read' in problem_of(tmp_path)
  with pytest.raises(DataError, match=r'data\.shape'):
    load(saved(tmp_path, x=IMAGES), (5, 1))


def packed(kind):
  stream = io.BytesIO()
  if kind == 'npy':
    np.save(stream, IMAGES)
  else:
    pack = np.savez if kind == 'npz' else np.savez_compressed
    pack(stream, x=IMAGES, label=LABELS)
  return stream.getvalue()


PACKED = {kind: packed(kind) for kind in ('npy', 'npz', 'compressed')}


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([*PACKED]), st.data())
def test_damage_is_a_clear_error_or_harmless(tmp_path_factory, kind, data):
  content = bytearray(PACKED[kind])
  if data.draw(st.booleans()):
    del content[data.draw(st.integers(0, len(content) - 1)) :]
  else:
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
  file = tmp_path_factory.mktemp('damaged') / 'mine.npz'
  file.write_bytes(content)
  message = ''
  try:
    load(file)
  except DataError as error:
    message = str(error)
  assert '\n' not in message
