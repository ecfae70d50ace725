"""Pictures of any names: no output is lost, overwritten or impossible to write."""

import pathlib

import pytest
from PIL import Image

from gdm_jax import main
from gdm_jax.modes import common
from gdm_jax.runtime.errors import ConfigError
from tests.support import pictures, runs

# Longest names: 255 bytes with the suffix.
EVIL = (
  '$a$',
  'a$\\frac',
  'ä ö',
  'ä_ö',
  '名' * 80,
  'x' * 251,
  'a,b',
  "it's",
  '%s',
  '{0}',
  '-x',
  '…',
)


def write(folder, *names, suffix='.png'):
  return [
    pictures.write(folder / f'{name}{suffix}', pictures.flat(i)) for i, name in enumerate(names)
  ]


def test_every_name_becomes_one_of_its_own(tmp_path):
  written = write(tmp_path, *EVIL, 'A', 'a', 'sheet', 'Completed', 'a-2')
  written += write(tmp_path, 'a', suffix='.bmp')
  written += write(tmp_path / 'sub', 'a')
  found = common.picture_files('edit.images', str(tmp_path))
  assert sorted(found.values()) == sorted(written)
  assert len({name.lower() for name in found} | set(common.RESERVED)) == len(written) + 2
  for name in found:
    longest = tmp_path / f'{common.file_name("x" * 999)}-{name}_1000.png'
    longest.write_bytes(b'')
    assert longest.parent == tmp_path


def test_plain_names_stay(tmp_path):
  write(tmp_path, 'a', 'b-1', 'c.d', 'e_f')
  assert list(common.picture_files('edit.images', str(tmp_path))) == ['a', 'b-1', 'c.d', 'e_f']
  again = common.picture_files('edit.images', f'{tmp_path}/a.png,{tmp_path}/*.png')
  assert [file.name for file in again.values()] == ['a.png', 'b-1.png', 'c.d.png', 'e_f.png']
  write(tmp_path, 'a', suffix='.jpg')
  assert {'a', 'a_png'} <= common.picture_files('edit.images', str(tmp_path)).keys()


def test_no_pictures(tmp_path):
  for patterns in (str(tmp_path), 'nowhere', f'{tmp_path}/*.png', ''):
    with pytest.raises(ConfigError, match=r'edit\.images = .*: no pictures in '):
      common.picture_files('edit.images', patterns)


@pytest.mark.parametrize('mode', ['edit', 'complete'])
def test_a_picture_for_every_name(mode, trained, tmp_path):
  write(tmp_path / 'in', *EVIL)
  options = {
    'edit': ['--config.edit.operation=mix', '--config.edit.groups=0,1'],
    'complete': ['--config.complete.groups=0,', '--config.complete.variants=1'],
  }[mode]
  where = (f'--config.{mode}.images={tmp_path}/in', f'--config.{mode}.folder={tmp_path}/out')
  assert main.main(['', *runs.arguments(trained, f'--mode={mode}', *where, *options, steps=8)]) == 0
  out = list((tmp_path / 'out').iterdir())
  # Edited: each image itself, and of each two three pictures.
  assert len(out) == {'edit': len(EVIL) + 3 * len(EVIL) + 1, 'complete': len(EVIL) + 1}[mode]
  for file in out:
    with Image.open(file) as image:
      image.load()
  assert pathlib.Path(tmp_path / 'in').exists()
