"""--mode=complete: the known pixels stay, the rest is generated, and errors say what would do."""

import numpy as np
import pytest
from PIL import Image

from gdm_jax import main
from gdm_jax.runtime.errors import ConfigError
from tests.support import runs


@pytest.fixture(scope='module')
def picture(tmp_path_factory):
  folder = tmp_path_factory.mktemp('pictures')
  pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
  Image.fromarray(pixels).save(folder / 'mine.png')
  mask = np.zeros((8, 8), np.uint8)
  mask[:4] = 255
  Image.fromarray(mask).save(folder / 'upper.png')
  mask[0, 5] = 0
  Image.fromarray(mask).save(folder / 'cut.png')
  Image.fromarray(np.zeros((9, 8), np.uint8)).save(folder / 'tall.png')
  Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / 'ones.png')
  Image.fromarray(np.full((8, 8), 255, np.uint8)).save(folder / 'white.png')
  (folder / 'broken.png').write_bytes(b'no picture')
  return folder


def arguments(workdir, picture, *overrides):
  image = f'--config.complete.images={picture}/mine.png'
  return runs.arguments(workdir, '--mode=complete', image, *overrides, steps=8)


@pytest.mark.parametrize(
  ('known', 'overrides'),
  [
    ('mask', ['--config.sampling.solver=adams_bashforth2']),
    ('groups', ['--config.sampling.solver=heun', '--config.sampling.order=1,0,3,2']),
  ],
)
def test_known_pixels_stay_bit_identical(known, overrides, trained, picture):
  given = {'mask': f'--config.complete.mask={picture}/upper.png', 'groups': '0,1'}
  given['groups'] = '--config.complete.groups=0,1'
  args = arguments(trained, picture, given[known], *overrides, '--config.complete.variants=3')
  args.append(f'--config.complete.folder=completed_{known}')
  assert main.main(['', *args]) == 0
  folder = trained / f'completed_{known}'
  assert sorted(f.name for f in folder.iterdir()) == [
    'completed.png',
    *(f'mine_{v}.png' for v in range(3)),
  ]
  original = np.asarray(Image.open(picture / 'mine.png'))
  made = [np.asarray(Image.open(folder / f'mine_{v}.png')) for v in range(3)]
  for one in made:
    np.testing.assert_array_equal(one[:4], original[:4])
  assert len({one[4:].tobytes() for one in made}) == 3
  assert Image.open(folder / 'completed.png').width > 5 * 48


BAD = {
  'a mask that cuts a group': ('mask={}/cut.png', 'complete.mask cuts group 1: 15 of its 16'),
  'a mask of another size': (
    'mask={}/tall.png',
    "cropped to 8 x 8; must be of the images' own size",
  ),
  'a mask of 0 and 1': ('mask={}/ones.png', 'is white nowhere; it holds 0 and 1'),
  'a white mask': ('mask={}/white.png', 'white.png is white everywhere'),
  'what is no picture': ('images={}/broken.png', 'broken.png (no picture)'),
  'no pictures': ('images={}/none*.png', 'no pictures in '),
  'an unknown group': ('groups=0,4', 'must be some of the groups 0 to 3'),
  'a group twice': ('groups=0,0', 'must be some of the groups 0 to 3, each once'),
  'every group': ('groups=0,1,2,3', 'must be some of the groups 0 to 3, each once, and not all'),
  'nothing known': ('variants=2', 'give one of them'),
  'more variants than seeds': (
    'variants=3 --config.sampling.seeds=0-1',
    "complete.variants = 3: sampling.seeds = '0-1' has only 2",
  ),
  'no variants': ('variants=0', 'complete.variants = 0 must be positive'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input(name, trained, picture, capsys):
  override, wanted = BAD[name]
  groups = '--config.complete.groups=0' if 'images' in override else '--config.log.grid=2'
  folder = '--config.complete.folder=bad'
  overrides = f'--config.complete.{override.format(picture)}'.split()
  if 'seeds' in override:
    overrides.append('--config.complete.groups=0')
  assert main.main(['', *arguments(trained, picture, groups, folder, *overrides)]) == 2
  assert wanted in capsys.readouterr().err
  assert not (trained / 'bad').exists()


def test_known_groups_must_come_first_in_a_trained_order(tmp_path, picture, capsys):
  fixed = ('--config.strategies.main.grouping=cascade', '--config.strategies.main.groups=2')
  order = '--config.strategies.main.order=0,1'
  args = runs.arguments(tmp_path, *fixed, order, steps=1)
  assert main.main(['', *args]) == 0
  assert main.main(['', *arguments(tmp_path, picture, '--config.complete.groups=1')]) == 2
  error = capsys.readouterr().err
  assert 'groups (1,) do not come first in the order (0, 1) of main' in error
  assert main.main(['', *arguments(tmp_path, picture, '--config.complete.groups=0')]) == 0


def test_the_first_strategy_that_fits_is_taken(tmp_path, picture):
  from gdm_jax import build
  from gdm_jax.modes import complete

  config = main.parse(['', f'--config={runs.ROOT}/configs/cifar10_strategies.py', *runs.TINY])[0]
  Image.fromarray(np.r_[np.zeros(512, np.uint8), np.full(512, 255, np.uint8)].reshape(32, 32)).save(
    tmp_path / 'lower.png'
  )
  config.complete.mask = str(tmp_path / 'lower.png')
  system = build.system(config)
  _, table, groups = complete.completion_table(config, system)
  labels = np.asarray(system.process.grouping.labels)
  np.testing.assert_array_equal(np.isin(labels, groups), np.indices((32, 32))[0] >= 16)
  np.testing.assert_array_equal(np.asarray(table)[2, list(groups)], 1)

  config.sampling.strategy = 'cdm'
  with pytest.raises(ConfigError, match=r'complete\.mask cuts group 0'):
    complete.completion_table(config, system)
