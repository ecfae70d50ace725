"""Reading one picture: orientation, transparency, colours, cropping, resizing."""

import numpy as np
import pytest
from PIL import Image

from gdm_jax.data import pictures
from tests.support.pictures import flat, truncate, write

SIZE = (8, 8)


def test_a_picture_that_fits_is_taken_as_it_is(tmp_path):
  rng = np.random.default_rng(0)
  for shape in (5, 7, 3), (5, 7, 1):
    pixels = rng.integers(0, 256, shape, np.uint8)
    found, done = pictures.read_picture(write(tmp_path / 'a.png', pixels.squeeze()), shape)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)
    assert done == ''


@pytest.mark.parametrize('shape', [(4, 4, 3), (4, 8, 3), (8, 4, 3), (2, 1, 3)])
@pytest.mark.parametrize('size', [(4, 6), (4, 11), (12, 4), (16, 4)])
def test_the_crop_is_the_centre(tmp_path, size, shape):
  """Red counts lines from the top, green columns from the left: what is kept lies in the middle."""
  height, width = size
  marks = np.stack([*np.indices(size), np.zeros(size)], -1)
  high = min(height, width * shape[0] // shape[1])
  wide = min(width, height * shape[1] // shape[0])
  found, done = pictures.read_picture(write(tmp_path / 'a.png', marks), (high, wide, 3))
  top, left = (height - high) // 2, (width - wide) // 2
  np.testing.assert_array_equal(found, marks[top : top + high, left : left + wide])
  assert done == ('' if (high, wide) == size else f'{width} x {height}, cropped to {wide} x {high}')


def test_the_four_quadrants_meet_in_the_middle(tmp_path):
  quadrants = np.kron([[40, 90], [160, 210]], np.ones((100, 150)))
  found, done = pictures.read_picture(write(tmp_path / 'a.png', quadrants), (8, 8, 1))
  assert done == '300 x 200, cropped to 200 x 200, resized to 8 x 8'
  corners = found[[0, 0, -1, -1], [0, -1, 0, -1], 0]
  np.testing.assert_allclose(corners.astype(int), [40, 90, 160, 210], atol=2)
  opposite = found.astype(int) + found[::-1, ::-1]  # symmetric about the centre
  np.testing.assert_allclose(opposite, 250, atol=1)


def test_resizing_is_antialiased(tmp_path):
  checkerboard = np.indices((64, 64)).sum(0) % 2 * 255
  found, done = pictures.read_picture(write(tmp_path / 'a.png', checkerboard), (16, 16, 1))
  assert done == '64 x 64, resized to 16 x 16'
  np.testing.assert_allclose(found.astype(int), 127.5, atol=2)


def test_a_small_picture_is_enlarged_smoothly(tmp_path):
  ramp = np.tile(np.arange(0, 240, 30), (8, 1))
  found, done = pictures.read_picture(write(tmp_path / 'a.png', ramp), (32, 32, 1))
  assert done == '8 x 8, resized to 32 x 32'
  line = found[16, 4:28, 0].astype(int)
  assert (np.diff(line) > 3).all()
  assert (np.diff(line) < 12).all()


def test_a_strip_of_one_pixel(tmp_path):
  found, done = pictures.read_picture(write(tmp_path / 'a.png', flat(7, (50, 1))), (4, 16, 1))
  np.testing.assert_array_equal(found, flat(7, (4, 16, 1)))
  assert done == '1 x 50, cropped to 1 x 1, resized to 16 x 4'


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif'])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
  upright = np.kron([[0, 60, 120], [180, 240, 30]], np.ones((16, 16))).astype(np.uint8)
  stored = {  # by what the viewer has to do, EXIF 2.3, 4.6.4 A
    1: upright,
    2: upright[:, ::-1],
    3: upright[::-1, ::-1],
    4: upright[::-1],
    5: upright.T,
    6: upright[:, ::-1].T,
    7: upright[::-1, ::-1].T,
    8: upright[::-1].T,
  }[orientation]
  exif = Image.Exif()
  exif[0x0112] = orientation
  file = write(tmp_path / f'a.{suffix}', stored, exif=exif)
  found, done = pictures.read_picture(file, (32, 48, 1))
  np.testing.assert_allclose(found[..., 0].astype(int), upright, atol=3)
  assert done == ('' if orientation == 1 else '48 x 32, turned upright')


def test_transparency_is_laid_on_white(tmp_path):
  rgba = np.zeros((8, 8, 4))
  rgba[:, :, 0] = 200
  rgba[:4, :, 3] = 255
  rgba[4, :, 3] = 51  # a fifth
  file = write(tmp_path / 'rgba.png', rgba)
  found, done = pictures.read_picture(file, (8, 8, 3))
  np.testing.assert_array_equal(found[:4], np.broadcast_to([200, 0, 0], (4, 8, 3)))
  np.testing.assert_array_equal(found[4], np.broadcast_to([244, 204, 204], (8, 3)))
  assert (found[5:] == 255).all()
  assert done == '8 x 8, laid on white'
  assert pictures.read_picture(file, (8, 8, 1))[1] == '8 x 8, laid on white, made grey'

  opaque = write(tmp_path / 'opaque.png', np.full((8, 8, 4), 255))
  assert pictures.read_picture(opaque, (8, 8, 3))[1] == ''


def test_transparent_greys_and_palettes(tmp_path):
  grey = np.stack([flat(10), np.where(np.arange(8) < 4, 0, 255) * np.ones((8, 1))], -1)
  found, done = pictures.read_picture(write(tmp_path / 'la.png', grey), (8, 8, 1))
  assert (found[:, :4] == 255).all()
  assert (found[:, 4:] == 10).all()
  assert done == '8 x 8, laid on white'

  palette = Image.fromarray(np.indices(SIZE)[1].astype(np.uint8) // 4, 'P')
  palette.putpalette([0, 0, 0, 10, 20, 30])
  for suffix in 'png', 'gif':
    palette.save(tmp_path / f'p.{suffix}', transparency=0)
    found, _ = pictures.read_picture(tmp_path / f'p.{suffix}', (8, 8, 3))
    assert (found[:, :4] == 255).all()
    assert (found[:, 4:] == [10, 20, 30]).all()


def test_modes_of_colour(tmp_path):
  red = Image.new('RGB', SIZE, (200, 40, 40))
  grey = round(0.299 * 200 + 0.587 * 40 + 0.114 * 40)
  cmyk = Image.new('CMYK', SIZE, (55, 215, 215, 0))
  cases = {'rgb.png': red, 'p.png': red.quantize(4), 'cmyk.jpg': cmyk, 'cmyk.tif': cmyk}
  for name, image in cases.items():
    image.save(tmp_path / name)
    found, done = pictures.read_picture(tmp_path / name, (8, 8, 3))
    np.testing.assert_allclose(found.astype(int), np.broadcast_to([200, 40, 40], (8, 8, 3)), atol=3)
    assert done == ''
    found, done = pictures.read_picture(tmp_path / name, (8, 8, 1))
    np.testing.assert_allclose(found.astype(int), grey, atol=3)
    assert done == '8 x 8, made grey'
  Image.new('1', SIZE, 1).save(tmp_path / 'bit.png')
  assert (pictures.read_picture(tmp_path / 'bit.png', (8, 8, 3))[0] == 255).all()


@pytest.mark.parametrize('bits', [10, 12, 16])
@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_sixteen_bits_keep_their_range(tmp_path, suffix, bits):
  levels = np.linspace(0, 2**bits - 1, 64).reshape(8, 8)
  Image.fromarray(levels.astype(np.uint16)).save(tmp_path / f'a.{suffix}')
  for channels in 1, 3:
    found, done = pictures.read_picture(tmp_path / f'a.{suffix}', (8, 8, channels))
    expected = np.broadcast_to(levels[..., None] / (2**bits - 1) * 255, (8, 8, channels))
    np.testing.assert_allclose(found.astype(int), expected, atol=1)
    assert done == f'8 x 8, {bits} bits made 8'


def test_an_animation_gives_its_first_frame(tmp_path):
  frames = [Image.fromarray(flat(value)) for value in (50, 100, 150)]
  frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
  assert (pictures.read_picture(tmp_path / 'a.gif', (8, 8, 1))[0] == 50).all()


def test_what_cannot_be_read(tmp_path):
  (tmp_path / 'text.png').write_text('not a picture')
  (tmp_path / 'empty.png').touch()
  truncate(tmp_path / 'half.png')
  Image.fromarray(np.ones(SIZE, np.float32)).save(tmp_path / 'float.tif')
  for name in 'text.png', 'empty.png', 'half.png', 'float.tif', 'missing.png':
    with pytest.raises(ValueError, match=f'^cannot read {tmp_path}/{name} '):
      pictures.read_picture(tmp_path / name, (8, 8, 1))


# What is made of a folder.
