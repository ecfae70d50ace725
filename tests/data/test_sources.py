import functools
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from gdm_jax.data import arrays, base, sources, tfds
from gdm_jax.runtime.errors import DataError
from tests.support import runs

TFDS_DIR = runs.ROOT / 'tests' / 'golden' / 'tfds'
CIFAR = (32, 32, 3)


def cifar(split='train', shape=CIFAR, data_dir=TFDS_DIR, **kwargs):
  return sources.load('tfds:cifar10', split, shape, data_dir=str(data_dir), **kwargs)


def edited(tmp_path, file, old, new):
  """A copy of the prepared data set in which one of its files says something else."""
  shutil.copytree(TFDS_DIR, tmp_path, dirs_exist_ok=True)
  path = tmp_path / 'cifar10' / '3.0.2' / file
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new))
  return tmp_path


def test_digits():
  digits = sources.load('digits', 'train', (8, 8, 1))
  assert (len(digits), digits.shape, digits.num_classes) == (1797, (8, 8, 1), 10)
  batch = digits[np.arange(len(digits))]
  assert batch['x'].dtype == np.float32
  assert batch['label'].dtype == np.int32
  assert (batch['x'].min(), batch['x'].max()) == (-1, 1)
  np.testing.assert_array_equal(np.unique(batch['label']), np.arange(10))
  some = np.array([5, 1000, 5])
  np.testing.assert_array_equal(digits[some]['x'], batch['x'][some])
  np.testing.assert_array_equal(digits[some]['label'], batch['label'][some])


def test_mixture_density_integrates_to_one():
  axis = np.linspace(-2.5, 2.5, 501)
  points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
  total = np.exp(arrays.Mixture().log_density(points)).sum() * (axis[1] - axis[0]) ** 2
  assert total == pytest.approx(1, abs=1e-3)


def test_mixture_density_at_points_with_a_known_value():
  mixture = arrays.Mixture(weights=(0.25, 0.75), means=((0, 0), (100, 0)), std=0.5)
  peak = np.log(0.25 / (2 * np.pi * 0.25))
  found = mixture.log_density(np.array([[0.0, 0.0], [0.5, 0.0], [0.0, -1.0]]))
  np.testing.assert_allclose(found, [peak, peak - 0.5, peak - 2])


def test_mixture_samples_have_the_moments_of_its_density():
  mixture = arrays.Mixture()
  source = sources.load('mixture', 'train', (2, 1))
  assert (len(source), source.shape, source.num_classes) == (100_000, (2, 1), 8)
  batch = source[np.arange(len(source))]
  assert batch['x'].dtype == np.float32
  points, weights, means = batch['x'][..., 0], np.array(mixture.weights), np.array(mixture.means)
  covariance = means.T @ np.diag(weights) @ means + mixture.std**2 * np.eye(2)
  np.testing.assert_allclose(weights @ means, 0, atol=1e-12)
  np.testing.assert_allclose(points.mean(0), 0, atol=0.02)
  np.testing.assert_allclose(np.cov(points.T), covariance, atol=0.02)
  np.testing.assert_allclose(np.diag(covariance), 1, atol=0.1)
  np.testing.assert_allclose(np.bincount(batch['label']) / len(source), weights, atol=0.01)
  for component, mean in enumerate(means):
    own = points[batch['label'] == component]
    np.testing.assert_allclose(own.mean(0), mean, atol=0.01)
    np.testing.assert_allclose(own.std(0), mixture.std, atol=0.01)


def test_mixture_is_the_same_every_time():
  first, second = (sources.load('mixture', 'train', (2, 1)) for _ in range(2))
  np.testing.assert_array_equal(first.x, second.x)


def test_tfds_is_decoded_at_once_or_lazily_to_the_same_images():
  memory, lazy = cifar(), cifar(memory_bytes=0)
  assert isinstance(memory, base.ArraySource)
  assert isinstance(lazy, base.LazySource)
  indices = np.random.default_rng(0).permutation(48)
  batches = [source[indices] for source in (memory, lazy)]
  for source, batch in zip((memory, lazy), batches, strict=True):
    assert (len(source), source.shape, source.num_classes) == (48, CIFAR, 10)
    assert batch['x'].shape == (48, *CIFAR)
    assert batch['x'].dtype == np.uint8
    assert batch['label'].dtype == np.int32
    np.testing.assert_array_equal(np.unique(batch['label']), np.arange(10))
  np.testing.assert_array_equal(batches[0]['x'], batches[1]['x'])
  np.testing.assert_array_equal(batches[0]['label'], batches[1]['label'])
  assert len(np.unique(batches[0]['x'], axis=0)) == 48


def test_memory_limit_is_inclusive():
  size = 48 * 32 * 32 * 3
  assert isinstance(cifar(memory_bytes=size), base.ArraySource)
  assert isinstance(cifar(memory_bytes=size - 1), base.LazySource)


def test_tfds_split_expressions():
  train, part = cifar(), cifar('train[:25%]')
  np.testing.assert_array_equal(part.x, train.x[:12])
  assert len(cifar('test')) == 16


def test_tfds_without_labels(tmp_path):
  source = cifar(data_dir=edited(tmp_path, 'features.json', '"label"', '"fine_label"'))
  assert source.num_classes == 0
  np.testing.assert_array_equal(source.label, np.zeros(48))


SHARD = 'cifar10-train.array_record-00000-of-00001'


@pytest.mark.parametrize('memory_bytes', [0, 2**30])
@pytest.mark.parametrize(
  ('file', 'size', 'problem'),
  [
    (SHARD, None, f'{SHARD} is missing'),
    (SHARD, 0, f'{SHARD} is damaged'),
    (SHARD, 65536, f'{SHARD} is damaged'),
    (SHARD, 131062, f'{SHARD} is damaged'),
    ('dataset_info.json', None, 'what describes it in'),
    ('dataset_info.json', 100, 'what describes it in'),
    ('features.json', 100, 'what describes it in'),
  ],
)
def test_tfds_files_that_are_missing_or_cut_short(file, size, problem, memory_bytes, tmp_path):
  shutil.copytree(TFDS_DIR, tmp_path, dirs_exist_ok=True)
  path = tmp_path / 'cifar10' / '3.0.2' / file
  if size is None:
    path.unlink()
  else:
    path.write_bytes(path.read_bytes()[:size])
  with pytest.raises(DataError, match=r"data\.name='tfds:cifar10': ") as caught:
    cifar(data_dir=tmp_path, memory_bytes=memory_bytes)
  assert problem in str(caught.value)


class Records:
  """Prepared records: example i is `image(i)`, labelled i."""

  def __init__(self, image):
    self.image = image

  def __getitems__(self, indices):
    return [{'image': self.image(i), 'label': i} for i in indices]


def test_decoding_fills_memory_in_order_over_several_chunks():
  records = Records(lambda i: np.full((1, 2, 1), i % 251, np.uint8))
  batch = tfds.read(
    'numbers', records, (1, 2, 1), True, [], np.array([3000]), np.arange(3000), True
  )
  np.testing.assert_array_equal(batch['label'], np.arange(3000))
  np.testing.assert_array_equal(batch['x'][:, 0, 1, 0], np.arange(3000) % 251)


def test_an_image_of_another_shape_is_refused():
  records = Records(lambda i: np.zeros((4 + (i == 2), 4, 1), np.uint8))
  read = functools.partial(tfds.read, 'faces', records, (4, 4, 1), False, [], np.array([3]))
  assert read(np.array([0, 1]), False)['x'].shape == (2, 4, 4, 1)
  with pytest.raises(DataError, match=r'faces has \(5, 4, 1\)'):
    read(np.array([0, 2]), False)


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (
      ('digit', 'train', (8, 8, 1)),
      r"data\.name='digit'.*signals, volumes, idx:FOLDER, npz:FILE, folder:PATH, tfds:NAME",
    ),
    (('digits', 'test', (8, 8, 1)), r"data\.split='test'.*has only train"),
    (('mixture', 'test', (2, 1)), r"data\.split='test'.*has only train"),
    (('digits', 'train', (8, 8, 3)), r'data\.shape=\(8, 8, 3\).*digits has \(8, 8, 1\)'),
    (('mixture', 'train', (2, 2)), r'data\.shape=\(2, 2\).*mixture has \(2, 1\)'),
  ],
)
def test_errors(args, message):
  with pytest.raises(DataError, match=message):
    sources.load(*args)


@pytest.mark.parametrize('memory_bytes', [0, 2**30])
def test_tfds_errors(memory_bytes):
  with pytest.raises(DataError, match=r'data\.shape=\(32, 32, 1\).*has \(32, 32, 3\)'):
    cifar(shape=(32, 32, 1), memory_bytes=memory_bytes)
  for split in ('validation', 'train[', 'train[:0]'):
    with pytest.raises(DataError, match=r'data\.split=.*it has train, test'):
      cifar(split, memory_bytes=memory_bytes)


@pytest.mark.parametrize('name', ['mnist', 'imagenet_resized/64x64', 'no_such', 'no such!', ''])
def test_tfds_data_set_that_is_not_prepared(tmp_path, name):
  with pytest.raises(DataError) as error:
    sources.load(f'tfds:{name}', 'train', CIFAR, data_dir=str(tmp_path))
  message = str(error.value)
  assert f"data.name='tfds:{name}'" in message
  assert f'tfds build {name} --file_format=array_record --data_dir={tmp_path}' in message
  assert 'TFDS_DATA_DIR or --config.machine.data_dir' in message
  assert message.count('\n') == 1


def test_tfds_data_set_in_another_file_format(tmp_path):
  directory = edited(tmp_path, 'dataset_info.json', '"array_record"', '"tfrecord"')
  with pytest.raises(DataError, match=r"data\.name='tfds:cifar10'.*tfrecord") as error:
    cifar(data_dir=directory)
  assert f'--file_format=array_record --data_dir={directory} --overwrite' in str(error.value)


@pytest.mark.parametrize(
  ('old', 'new'), [('"image": {\n                "image"', '"x": {"image"'), ('uint8', 'uint16')]
)
def test_tfds_data_set_without_uint8_images(tmp_path, old, new):
  with pytest.raises(DataError, match=r"data\.name='tfds:cifar10' has no feature 'image'"):
    cifar(data_dir=edited(tmp_path, 'features.json', old, new))


def test_neither_tensorflow_nor_the_network_is_touched(tmp_path):
  """With a TensorFlow that ends the program when imported, and sockets that do the same."""
  (tmp_path / 'tensorflow').mkdir()
  (tmp_path / 'tensorflow' / '__init__.py').write_text("raise SystemExit('tensorflow imported')")
  script = """
import socket, sys, time
def refuse(*args):
  raise SystemExit('network used')
socket.socket.connect = socket.getaddrinfo = refuse
import numpy as np
from gdm_jax.data import pipeline, sources
from gdm_jax.runtime.errors import DataError
source = sources.load('tfds:cifar10', 'train', (32, 32, 3))
print(next(pipeline.batches(source, 4, 0))['x'].shape)
import tensorflow_datasets
for name in ('mnist', 'celeb_a', 'no_such', 'imagenet_resized/64x64', 'huggingface:mnist'):
  start = time.monotonic()
  try:
    sources.load(f'tfds:{name}', 'train', (32, 32, 3))
  except DataError:
    print(name, time.monotonic() - start < 2)
print('tensorflow' in sys.modules)
"""
  environment = {
    **os.environ,
    'PYTHONPATH': os.pathsep.join([str(tmp_path), str(runs.ROOT)]),
    'TFDS_DATA_DIR': str(TFDS_DIR),
  }
  done = subprocess.run(
    [sys.executable, '-c', script], env=environment, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == [
    '(4, 32, 32, 3)',
    'mnist True',
    'celeb_a True',
    'no_such True',
    'imagenet_resized/64x64 True',
    'huggingface:mnist True',
    'False',
  ]


def test_slices_of_embedded_data():
  whole = sources.load('digits', 'train', (8, 8, 1))
  for split, chosen in {
    'train[:90%]': slice(0, 1617),
    'train[90%:]': slice(1617, 1797),
    'train[-5:]': slice(1792, 1797),
    'train[10:20]': slice(10, 20),
    'train[:]': slice(None),
  }.items():
    part = sources.load('digits', split, (8, 8, 1))
    np.testing.assert_array_equal(part.x, whole.x[chosen])
    np.testing.assert_array_equal(part.label, whole.label[chosen])
    assert part.num_classes == 10
  with pytest.raises(DataError, match=r"'train\[2000:\]' leaves nothing of the 1,797"):
    sources.load('digits', 'train[2000:]', (8, 8, 1))
