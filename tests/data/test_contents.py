"""The fingerprint of a data set changes with the data and with nothing else."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from gdm_jax.data import base, sources
from gdm_jax.data.contents import Contents

SHAPE = (6, 6, 1)


@pytest.fixture
def folder(tmp_path):
  """Twelve pictures of three classes."""
  rng = np.random.default_rng(0)
  for name in ('2', '10', 'cat'):
    (tmp_path / 'data' / name).mkdir(parents=True)
    for i in range(4):
      image = Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8))
      image.save(tmp_path / 'data' / name / f'{i}.png')
  return tmp_path / 'data'


def contents(folder, split='train', **options):
  return Contents.of(sources.load(f'folder:{folder}', split, SHAPE, **options))


def test_of_a_folder(folder):
  found = contents(folder)
  assert found[:2] == (12, ('2', '10', 'cat'))
  assert str(found) == '12 examples, 3 classes: 0 2, 1 10, 2 cat'


def test_the_place_and_the_way_of_reading_do_not_matter(folder):
  before = contents(folder)
  assert contents(folder, memory_bytes=0) == before
  assert contents(folder, skip_broken=True) == before
  elsewhere = folder.with_name('moved, and renamed')
  folder.rename(elsewhere)
  assert contents(elsewhere) == before
  assert not contents(elsewhere).difference(before)


def add(folder):
  shutil.copy(folder / '2' / '0.png', folder / '2' / '9.png')


def remove(folder):
  (folder / 'cat' / '0.png').unlink()


def move(folder):
  (folder / 'cat' / '0.png').rename(folder / '2' / '7.png')


def rename(folder):
  (folder / 'cat').rename(folder / 'dog')


def resize(folder):
  Image.new('L', (60, 60)).save(folder / 'cat' / '0.png')


@pytest.mark.parametrize('change', [add, remove, move, rename, resize])
@pytest.mark.parametrize('memory_bytes', [0, 2**30])
def test_every_change_of_a_folder_is_seen(folder, change, memory_bytes):
  before = contents(folder, memory_bytes=memory_bytes)
  change(folder)
  after = contents(folder, memory_bytes=memory_bytes)
  assert after.fingerprint != before.fingerprint
  assert str(after) in before.difference(after) or change in (move, resize)


def test_slices_differ(folder):
  found = {contents(folder, split).fingerprint for split in ('train', 'train[:6]', 'train[6:]')}
  assert len(found) == 3


def test_every_value_of_an_array_counts():
  x, label = np.zeros((5, 2, 2, 1), np.uint8), np.zeros(5, np.int32)

  def fingerprint(x, label, classes=2):
    return Contents.of(base.ArraySource(x, label, classes)).fingerprint

  found = {fingerprint(x, label), fingerprint(x, label, 3), fingerprint(x.astype('f4'), label)}
  for i in range(x.size):
    changed = x.copy()
    changed.flat[i] = 1
    found.add(fingerprint(changed, label))
  for i in range(5):
    changed = label.copy()
    changed[i] = 1
    found.add(fingerprint(x, changed))
  assert len(found) == 3 + x.size + 5
  assert fingerprint(x.copy(), label.copy()) == fingerprint(x, label)


def test_many_classes_are_named_in_short():
  assert str(Contents(9, (), '')) == '9 examples without classes'
  names = tuple(f'name {i}' for i in range(1000))
  assert str(Contents(5000, names, '')) == (
    '5,000 examples, 1,000 classes: 0 name 0, 1 name 1, ..., 999 name 999'
  )
  assert str(Contents.of(sources.load('digits', 'train', (8, 8, 1)))).endswith(
    '10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9'
  )
  fashion = Contents.of(sources.load('fashion', 'test', (28, 28, 1)))
  assert '2,000 examples, 10 classes: 0 T-shirt/top, 1 Trouser' in str(fashion)


def test_comes_back_from_json(folder):
  found = contents(folder)
  assert Contents.from_json(json.loads(json.dumps(found._asdict()))) == found
