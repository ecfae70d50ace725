"""--mode=edit on pictures of the user's own, with a model hardly trained."""

import numpy as np
import pytest
from PIL import Image

from gdm_jax import basis, build, main, sampling
from gdm_jax.generation import editing
from gdm_jax.generation.generator import Generator
from gdm_jax.runtime import sharding
from gdm_jax.solvers import ReversiblePair
from gdm_jax.training.workdir import load_ema
from tests.support import runs

BANDS = (
  '--config.basis.name=cosine',
  '--config.strategies.main.grouping=bands',
  '--config.strategies.main.groups=4,16',
  '--config.strategies.main.order=0,1,2',
)
SHAPE = (8, 8, 1)


@pytest.fixture(scope='module')
def banded(tmp_path_factory):
  """A workdir of digits in three cosine bands."""
  workdir = tmp_path_factory.mktemp('banded') / 'run'
  assert main.main(['', *runs.arguments(workdir, *BANDS, steps=8)]) == 0
  return workdir


@pytest.fixture
def photos(tmp_path):
  """Two pictures of other sizes than the model's, one of them in colour."""
  folder, rng = tmp_path / 'photos', np.random.default_rng(0)
  folder.mkdir()
  for name, size in (('one', (30, 50)), ('two', (40, 24, 3))):
    Image.fromarray(rng.integers(0, 256, size).astype(np.uint8)).save(folder / f'{name}.png')
  return folder


def edit(workdir, photos, *overrides):
  keys = [f'--config.edit.{override}' for override in (f'images={photos}', *overrides)]
  argv = ['', *runs.arguments(workdir, *BANDS, steps=8), '--mode=edit', *keys]
  return main.main([*argv, '--config.sampling.steps=6'])


def names(workdir, folder='edited'):
  return sorted(file.name for file in (workdir / folder).iterdir())


def picture(workdir, name, folder='edited'):
  return np.asarray(Image.open(workdir / folder / name)).astype(float)


def test_pictures_of_other_sizes_come_back_as_the_model_sees_them(banded, photos, capsys):
  assert edit(banded, photos, 'folder=same') == 0
  said = capsys.readouterr().err
  assert f'{photos}/one.png: 50 x 30, cropped to 30 x 30, resized to 8 x 8' in said
  assert f'{photos}/two.png: 24 x 40, made grey, cropped to 24 x 24, resized to 8 x 8' in said
  assert said.count('levels of 255 at most') == 2
  assert 'that is visible' not in said
  assert names(banded, 'same') == ['one.png', 'sheet.png', 'two.png']
  image = Image.open(photos / 'one.png').crop((10, 0, 40, 30))
  wanted = np.asarray(image.resize((8, 8), Image.Resampling.LANCZOS), float)
  assert np.abs(picture(banded, 'one.png', 'same') - wanted).max() <= 1


def test_a_coarse_solver_is_said_to_be_visible(banded, photos, capsys):
  assert edit(banded, photos, 'solver=euler', 'folder=euler') == 0
  assert (
    'that is visible: take more --config.sampling.steps, or edit.solver' in capsys.readouterr().err
  )


def test_mixing_swaps_every_band_in_turn(banded, photos):
  assert edit(banded, photos, 'operation=mix', 'folder=mixed') == 0
  assert names(banded, 'mixed') == [
    'one.png',
    *(f'one_with_two-{column}.png' for column in ('0_3', '16_63', '4_15', 'original', 'reference')),
    'sheet.png',
    'two.png',
    *(f'two_with_one-{column}.png' for column in ('0_3', '16_63', '4_15', 'original', 'reference')),
  ]
  one, two = (picture(banded, f'{name}.png', 'mixed') for name in ('one', 'two'))
  for name, image in (('one_with_two-original', one), ('one_with_two-reference', two)):
    assert np.abs(picture(banded, f'{name}.png', 'mixed') - image).max() <= 1
  assert np.abs(picture(banded, 'one_with_two-0_3.png', 'mixed') - one).max() > 5


@pytest.mark.parametrize(
  ('operation', 'overrides', 'pictures'),
  [
    ('interpolate', ('weights=0.0,0.5,1.0', 'groups=0,1'), 3),
    ('traverse', ('ranks=1,5', 'strengths=-3.0,3.0'), 2 * 2 * 3),
    ('vary', ('variants=3',), 2 * 2 * 4),
    ('vary', ('variants=3', 'band=0,30'), 2 * 4),
  ],
)
def test_every_operation_writes_its_pictures(banded, photos, operation, overrides, pictures):
  folder = f'{operation}{len(overrides)}'
  assert edit(banded, photos, f'operation={operation}', f'folder={folder}', *overrides) == 0
  assert len(names(banded, folder)) == pictures + 3  # the pictures unedited, and the sheet
  width, height = Image.open(banded / folder / 'sheet.png').size
  assert min(width, height) > 100


def test_the_ends_of_an_interpolation_of_all_bands_are_both_pictures(banded, photos):
  overrides = 'operation=interpolate', 'weights=0.0,1.0', 'groups=0,1,2', 'folder=ends'
  assert edit(banded, photos, *overrides) == 0
  for weight, name in (('0', 'one'), ('1', 'two')):
    (file,) = (n for n in names(banded, 'ends') if n.endswith(f'-{weight}.png'))
    both = picture(banded, file, 'ends'), picture(banded, f'{name}.png', 'ends')
    assert np.abs(both[0] - both[1]).max() <= 1


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (('operation=paint',), "edit.operation = 'paint': there are reconstruct, mix"),
    (('images=nowhere',), "edit.images = 'nowhere': no pictures in 'nowhere'"),
    (('groups=3',), 'edit.groups = (3,): the groups are 0 to 2'),
    (('groups=1', 'band=0,3'), 'give one of them'),
    (('band=5,5',), 'edit.band = (5, 5): band [5, 5)'),
    (('solver=fast',), "edit.solver = 'fast': solver"),
    (('operation=traverse', 'channel=1'), 'channel 1: there are 0 to 0'),
    (('operation=traverse', 'ranks=64'), 'band [64, 65)'),
    (('operation=vary', 'variants=90'), 'edit.variants = 90 needs as many of sampling.seeds'),
  ],
)
def test_what_cannot_be_edited_is_named(banded, photos, overrides, message, capsys):
  assert edit(banded, photos, *overrides) == 2
  assert message in capsys.readouterr().err


def test_pictures_are_taken_two_by_two(banded, photos, capsys):
  assert edit(banded, photos / 'one.png', 'operation=mix') == 2
  assert '1 images cannot be taken two by two' in capsys.readouterr().err


def test_a_pattern_without_pictures_is_named_also_behind_others(banded, photos, capsys):
  assert edit(banded, photos, f'images={photos}/one.png,{photos}/none*.png') == 2
  assert f"no pictures in '{photos}/none*.png'" in capsys.readouterr().err


def test_a_file_that_is_no_picture_is_named(banded, photos, capsys):
  (photos / 'three.png').write_text('not a picture')
  assert edit(banded, photos) == 2
  assert 'three.png' in capsys.readouterr().err


LABELLED = '--config.model.classes=10'


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
  """A workdir of a model of labels, in three cosine bands."""
  workdir = tmp_path_factory.mktemp('labelled') / 'run'
  many = '--config.train.learning_rate=0.1', '--config.train.ema_halflife=1'
  assert main.main(['', *runs.arguments(workdir, *BANDS, LABELLED, *many, steps=8)]) == 0
  return workdir


def test_decoding_under_another_label_translates(labelled, photos):
  for folder, labels in {
    'same': ('encode_label=3', 'decode_label=3'),
    'other': ('encode_label=3', 'decode_label=7'),
    'none': (),
  }.items():
    assert edit(labelled, photos, f'folder={folder}', *labels) == 0
  same, other, none = (picture(labelled, 'one.png', f) for f in ('same', 'other', 'none'))
  assert np.abs(same - none).max() <= 1
  assert np.abs(same - other).max() > 1


def test_labels_that_there_are_not_are_named(labelled, banded, photos, capsys):
  assert edit(banded, photos, 'encode_label=0') == 2
  assert (
    'edit.encode_label = 0: must be -1, no label, or below 0 classes' in capsys.readouterr().err
  )
  assert edit(labelled, photos, 'decode_label=10') == 2
  assert 'edit.decode_label = 10: must be -1' in capsys.readouterr().err


@pytest.mark.parametrize('solver', ['heun', 'reversible_heun'])
def test_encoding_in_batches_is_encoding(banded, solver):
  """Five images, two at once, over all devices: as `sampling.encode`, and `decode` as `sample`."""
  config = main.parse(['', *runs.arguments(banded, *BANDS), '--config.sampling.steps=6'])[0]
  system, mesh = build.system(config), sharding.mesh()
  params, _ = load_ema(config, banded, system, mesh)
  table = build.sampling_table(config, system)
  generator = Generator(system, SHAPE, solver, mesh)
  x = build.data_source(config)[np.arange(5)]['x']

  def predict(x_t, alpha):
    return system.predictor(params, x_t, alpha, np.full(len(x_t), -1))

  z = generator.encode(params, table, x, 2)
  wanted = sampling.encode(predict, system.process, table, x, solver)
  assert isinstance(z, ReversiblePair) == (solver == 'reversible_heun')
  for one, other in zip(z, wanted, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)
  again = generator.decode(params, table, z, 3)
  np.testing.assert_allclose(
    again, sampling.sample(predict, system.process, table, wanted, solver), atol=1e-5
  )
  if solver == 'reversible_heun':
    np.testing.assert_allclose(again, x, atol=1e-4)


def test_masks_are_named_by_their_ranks_and_cover_all(banded):
  config = main.parse(['', *runs.arguments(banded, *BANDS)])[0]
  found = editing.masks(build.system(config), 'main')
  assert list(found) == ['[0, 3]', '[4, 15]', '[16, 63]']
  np.testing.assert_array_equal(sum(np.asarray(m, int) for m in found.values()), np.ones((8, 8, 1)))
  ranks = np.asarray(basis.cosine((8, 8)).ranks)
  assert sorted(ranks[np.asarray(found['[4, 15]'])[..., 0]]) == list(range(4, 16))
  kept = editing.lowest(found)
  assert list(kept) == ['[0, 3]', '[0, 3] [4, 15]']
  assert kept['[0, 3] [4, 15]'].sum() == 16


def test_blocks_are_named_by_number():
  config = main.parse(['', f'--config={runs.ROOT}/configs/digits.py'])[0]
  found = editing.masks(build.system(config), 'main')
  assert list(found) == [f'group {j}' for j in range(4)]
