import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gdm_jax.data import base, folder, pictures, pipeline, sources, units
from gdm_jax.runtime.errors import DataError
from tests.support.pictures import flat, truncate, write

SIZE = (8, 8)


def numbered(where, count):
  """That many pictures, each of its own grey."""
  for i in range(count):
    write(where / f'{i:03}.png', flat(i))


def load(where, split='train', shape=(8, 8, 1), **kwargs):
  return sources.load(f'folder:{where}', split, shape, **kwargs)


def everything(source):
  return source[np.arange(len(source))]


def values(source):
  """The grey that each picture is full of."""
  x = everything(source)['x']
  assert (x == x[:, :1, :1]).all()
  return x[:, 0, 0, 0]


def test_pictures_of_any_kind_and_size_at_any_depth(tmp_path):
  suffixes = ['png', 'jpg', 'jpeg', 'webp', 'bmp', 'gif', 'tif', 'tiff', 'PNG', 'Jpg']
  for i, suffix in enumerate(suffixes):
    write(tmp_path / ('a/' * (i % 4)) / f'{i}.{suffix}', flat(20 * i, (5 + i, 20 - i)))
  for other in 'notes.txt', 'png', 'a/weights.npz':
    (tmp_path / other).write_text('no picture')
  for hidden in '.hidden.png', '.thumbnails/a.png', 'a/.b/c.png', 'a/._0.png':
    write(tmp_path / hidden, flat(255))
  source = load(tmp_path)
  assert (source.shape, source.num_classes, source.bin_width) == ((8, 8, 1), 0, units.LEVEL)
  np.testing.assert_allclose(np.sort(values(source)), 20 * np.arange(10), atol=2)
  assert everything(source)['x'].dtype == np.uint8
  assert everything(source)['label'].dtype == np.int32
  np.testing.assert_array_equal(everything(source)['label'], 0)


def test_folders_below_the_home_folder_and_behind_links(tmp_path, monkeypatch):
  numbered(tmp_path / 'elsewhere', 3)
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'linked').symlink_to(tmp_path / 'elsewhere')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert len(load('~/mine')) == 3


def test_subfolders_are_classes(tmp_path):
  for value, name in enumerate(['cat', 'Dog', 'a[1]']):
    for i in range(4):
      write(tmp_path / name / f'{i}.png', flat(value))
  source = load(tmp_path)
  assert source.num_classes == 3
  names = np.array(['cat', 'Dog', 'a[1]'])[values(source)]
  np.testing.assert_array_equal(np.array(['Dog', 'a[1]', 'cat'])[source.label], names)


@pytest.mark.parametrize('stray', ['stray.png', 'cat/deep/stray.png'])
def test_without_classes_where_not_all_lie_in_subfolders(tmp_path, stray):
  for file in 'cat/0.png', 'dog/0.png', stray:
    write(tmp_path / file, flat(0))
  source = load(tmp_path)
  assert (len(source), source.num_classes) == (3, 0)
  np.testing.assert_array_equal(source.label, 0)


def test_several_folders_are_classes_as_they_are_listed(tmp_path):
  for value, name in enumerate(['flowers', 'cats']):
    for i in range(5 + value):
      write(tmp_path / name / f'kind{i % 2}' / f'{i}.png', flat(value))
  source = load(f'{tmp_path}/flowers,{tmp_path}/cats')
  assert (len(source), source.num_classes) == (11, 2)
  np.testing.assert_array_equal(source.label, values(source))


def test_the_order_is_shuffled_once_and_for_all(tmp_path):
  numbered(tmp_path / 'a', 60)
  for i in reversed(range(60)):  # written in another order, in another place
    write(tmp_path / 'b' / f'{i:03}.png', flat(i))
  expected = np.random.default_rng(0).permutation(60)
  for name in 'a', 'b':
    np.testing.assert_array_equal(values(load(tmp_path / name)), expected)


@pytest.mark.parametrize('memory_bytes', [0, 2**30])
def test_slices(tmp_path, memory_bytes):
  numbered(tmp_path, 20)
  whole = values(load(tmp_path))
  for split, chosen in {
    'train[:90%]': slice(0, 18),
    'train[90%:]': slice(18, 20),
    'train[-5:]': slice(15, 20),
    'train[3:4]': slice(3, 4),
  }.items():
    part = load(tmp_path, split, memory_bytes=memory_bytes)
    np.testing.assert_array_equal(values(part), whole[chosen])
  with pytest.raises(DataError, match=r"'train\[30:\]' leaves nothing of the 20"):
    load(tmp_path, 'train[30:]', memory_bytes=memory_bytes)
  with pytest.raises(DataError, match=r"data\.split='test'.*has only train"):
    load(tmp_path, 'test', memory_bytes=memory_bytes)


def test_a_slice_has_the_classes_of_the_whole(tmp_path):
  for i in range(6):
    write(tmp_path / str(i) / 'a.png', flat(i))
  part = load(tmp_path, 'train[:2]')
  assert part.num_classes == 6
  np.testing.assert_array_equal(part.label, values(part))


def test_lazy_is_as_decoded(tmp_path, monkeypatch):
  monkeypatch.setattr(folder, '_PART', 7)
  rng = np.random.default_rng(0)
  for i in range(20):
    shape = (*rng.integers(4, 40, 2), 3)
    write(tmp_path / str(i % 3) / f'{i}.png', rng.integers(0, 256, shape))
  size = 20 * 8 * 6 * 3
  memory = load(tmp_path, shape=(8, 6, 3), memory_bytes=size)
  lazy = load(tmp_path, shape=(8, 6, 3), memory_bytes=size - 1)
  assert isinstance(memory, base.ArraySource)
  assert isinstance(lazy, base.LazySource)
  for name in 'shape', 'num_classes', 'bin_width':
    assert getattr(lazy, name) == getattr(memory, name)
  indices = np.array([3, 19, 3, *range(20)])
  for key in 'x', 'label':
    np.testing.assert_array_equal(lazy[indices][key], memory[indices][key])
  assert len(np.unique(memory.x, axis=0)) == 20


@pytest.mark.parametrize('memory_bytes', [0, 2**30])
def test_through_the_pipeline(tmp_path, memory_bytes):
  for i in range(10):
    write(tmp_path / f'{i % 2}' / f'{i}.png', flat(i, (9 + i, 12)))
  source = load(tmp_path, memory_bytes=memory_bytes)
  stream = pipeline.batches(source, 4, seed=0, flip=True)
  batches = [next(stream) for _ in range(5)]
  x, label = (np.concatenate([batch[key] for batch in batches]) for key in ('x', 'label'))
  assert x.shape == (20, 8, 8, 1)
  np.testing.assert_array_equal(np.sort(x[:10, 0, 0, 0]), np.arange(10))
  np.testing.assert_array_equal(x[:, 0, 0, 0] % 2, label)


def test_a_program_ends_quietly_while_batches_are_still_read_ahead(tmp_path):
  numbered(tmp_path, 50)
  script = f"""
from gdm_jax.data import pipeline, sources
source = sources.load('folder:{tmp_path}', 'train', (64, 64, 1), memory_bytes=0)
print(next(pipeline.batches(source, 32, 0))['x'].shape)
"""
  root = str(pathlib.Path(__file__).parents[2])
  done = subprocess.run(
    [sys.executable, '-c', script],
    env={**os.environ, 'PYTHONPATH': root},
    capture_output=True,
    text=True,
    check=False,
    timeout=60,
  )
  assert (done.returncode, done.stdout) == (0, '(32, 64, 64, 1)\n')
  assert 'Traceback' not in done.stderr


# What can be wrong.


def test_missing_and_empty_folders(tmp_path):
  numbered(tmp_path / 'good', 2)
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'empty' / 'notes.txt').touch()
  cases = {
    f'{tmp_path}/none': rf"data\.name='folder:.*there is no folder '{tmp_path}/none'",
    f'{tmp_path}/good,{tmp_path}/none': rf"there is no folder '{tmp_path}/none'",
    f'{tmp_path}/good/000.png': 'there is no folder',
    '': "there is no folder ''",
    f'{tmp_path}/empty': rf"data\.name='folder:.*no pictures in {tmp_path}/empty, only 1 other",
    f'{tmp_path}/good,{tmp_path}/empty': rf'no pictures in {tmp_path}/empty',
  }
  for where, message in cases.items():
    with pytest.raises(DataError, match=message):
      load(where)


@pytest.mark.parametrize('shape', [(8, 1), (8, 8, 2), (8, 8, 8, 3)])
def test_shapes_that_are_none_of_a_picture(tmp_path, shape):
  numbered(tmp_path, 2)
  with pytest.raises(DataError, match=r'data\.shape=.*needs \(height, width, 1 or 3\)'):
    load(tmp_path, shape=shape)


@pytest.mark.parametrize('memory_bytes', [0, 2**30])
def test_files_that_are_no_pictures_are_counted(tmp_path, memory_bytes, monkeypatch):
  monkeypatch.setattr(folder, '_PART', 7)
  numbered(tmp_path, 20)
  for broken, rest in (7, ''), (13, '; nor 1 other of 20'), (4, '; nor 2 others of 20'):
    (tmp_path / f'{broken:03}.png').write_text('text')
    with pytest.raises(DataError) as error:
      load(tmp_path, memory_bytes=memory_bytes)
    message = str(error.value)
    first = min(7, broken)
    assert message.startswith(f"data.name='folder:{tmp_path}': cannot read {tmp_path}/{first:03}")
    hint = '; --config.data.skip_broken=True leaves them out'
    assert message.endswith(f' (no picture){rest}{hint}')


def test_truncated_pictures_are_found_when_they_are_decoded(tmp_path):
  numbered(tmp_path, 20)
  truncate(tmp_path / '011.png')
  truncate(tmp_path / '012.png')
  with pytest.raises(DataError, match=r'cannot read .*/011\.png .*; nor 1 other of 20;'):
    load(tmp_path)
  lazy = load(tmp_path, memory_bytes=0)
  order = np.random.default_rng(0).permutation(20)
  assert lazy[np.flatnonzero(order < 11)]['x'].shape == (11, 8, 8, 1)
  with pytest.raises(DataError, match=rf'cannot read {tmp_path}/012\.png .*truncated'):
    lazy[np.flatnonzero(order >= 12)]


@pytest.mark.parametrize('memory_bytes', [0, 2**30])
def test_broken_pictures_are_listed_and_left_out(tmp_path, memory_bytes, capsys):
  numbered(tmp_path, 20)
  truncate(tmp_path / '011.png')
  (tmp_path / '012.png').write_text('text')
  source = load(tmp_path, memory_bytes=memory_bytes, skip_broken=True)
  assert sorted(values(source)) == [i for i in range(20) if i not in (11, 12)]
  listed = capsys.readouterr().err
  assert f'cannot read {tmp_path}/011.png' in listed
  assert f'cannot read {tmp_path}/012.png (no picture)' in listed
  (tmp_path / 'all').mkdir()
  (tmp_path / 'all' / 'a.png').write_text('text')
  with pytest.raises(DataError, match='none of 1 pictures can be read'):
    load(tmp_path / 'all', memory_bytes=memory_bytes, skip_broken=True)


def test_classes_that_are_numbers_sort_as_numbers(tmp_path):
  for number in (0, 1, 2, 10):
    write(tmp_path / str(number) / '0.png', flat(number))
  source = load(tmp_path)
  order = np.argsort(source.label)
  np.testing.assert_array_equal(values(source)[order], [0, 1, 2, 10])


def test_one_class_is_none(tmp_path):
  numbered(tmp_path / 'all', 3)
  assert load(tmp_path).num_classes == 0


def test_folders_named_as_pictures_and_links_in_a_circle(tmp_path):
  write(tmp_path / 'a.png' / 'b.jpg' / '0.png', flat(3))
  (tmp_path / 'a.png' / 'up').symlink_to(tmp_path)
  (tmp_path / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
  assert len(load(tmp_path)) == 1


def test_a_picture_is_what_can_be_opened(tmp_path, capsys):
  numbered(tmp_path, 2)
  (tmp_path / '001.png').rename(tmp_path / 'no_suffix')
  (tmp_path / 'Thumbs.db').write_bytes(b'other')
  assert len(load(tmp_path)) == 2
  said = capsys.readouterr().err
  assert f'{tmp_path}: 1 files that are no pictures were passed over' in said


def test_paths_with_commas(tmp_path):
  numbered(tmp_path / 'a,b', 2)
  numbered(tmp_path / 'c', 3)
  assert len(load(tmp_path / 'a,b')) == 2
  source = load(f'{tmp_path}/a,b,{tmp_path}/c')
  assert (len(source), source.num_classes) == (5, 2)


@pytest.mark.parametrize(
  ('names', 'expected'),
  [
    (['10', '2', '1'], ['1', '2', '10']),
    (['a10', 'a2', 'b1'], ['a2', 'a10', 'b1']),
    (['02', '2', '1'], ['1', '02', '2']),
    (['B', 'a', '1'], ['1', 'B', 'a']),
  ],
)
def test_numbers_in_names_sort_as_numbers(names, expected):
  assert sorted(names, key=pictures.natural) == expected


def test_only_headers_are_read_of_what_does_not_fit_in_memory(tmp_path, monkeypatch):
  numbered(tmp_path, 3)
  monkeypatch.setattr(Image.Image, 'convert', lambda *_: pytest.fail('decoded'))
  assert len(load(tmp_path, memory_bytes=0)) == 3


def test_a_jpeg_cut_short_anywhere_is_refused_by_name(tmp_path):
  """Whatever a decoder raises, it arrives as one kind of error."""
  buffer = io.BytesIO()
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(
    buffer, 'jpeg', exif=Image.Exif()
  )
  for length in range(0, buffer.tell() - 100, 41):
    (tmp_path / 'a.jpg').write_bytes(buffer.getvalue()[:length])
    with pytest.raises(ValueError, match=r'^cannot read'):
      folder.read_picture(tmp_path / 'a.jpg', (32, 32, 3))
