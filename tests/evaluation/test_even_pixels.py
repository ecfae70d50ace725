"""Even pixels: the source's images, and their evaluation against outputs of srmbench 1.0.3.

golden/even_pixels.npz holds images of its kind in [-1, 1], clean, noisy, uneven and of any hues,
what its evaluator says of each, and eight of its own images at 8 x 8.
"""

import numpy as np
import pytest

from gdm_jax.data import sources
from gdm_jax.data.units import from_uint8
from gdm_jax.evaluation.even_pixels import evenness, hsv
from gdm_jax.runtime.errors import DataError
from tests.support import runs


@pytest.fixture(scope='module')
def golden():
  return np.load(runs.ROOT / 'tests' / 'golden' / 'even_pixels.npz')


def test_the_evaluation_is_that_of_srmbench(golden):
  found = evenness(golden['x'].astype(np.float32))
  assert len(np.unique(golden['imbalance'])) > 5
  np.testing.assert_array_equal(found.imbalance, golden['imbalance'])
  np.testing.assert_allclose(found.saturation, golden['saturation'], atol=1e-6)
  np.testing.assert_allclose(found.value, golden['value'], atol=1e-6)


@pytest.mark.parametrize('side', [2, 8, 16])
def test_the_data_are_even(side):
  data = sources.load('even_pixels', 'test[:50]', (side, side, 3))
  found = evenness(from_uint8(data.x))
  assert not found.imbalance.any()
  assert max(found.saturation.max(), found.value.max()) < 1e-6


def test_changed_pixels_are_counted():
  x = from_uint8(sources.load('even_pixels', 'train[:8]', (8, 8, 3)).x).reshape(8, 64, 3).copy()
  for i, image in enumerate(x):
    other = image[np.any(image != image[0], axis=1)][:i]
    image[np.flatnonzero(np.all(image == image[0], axis=1))[:i]] = other[:1]
  np.testing.assert_array_equal(evenness(x.reshape(8, 8, 8, 3)).imbalance, np.arange(8))


def test_images_look_like_those_of_srmbench(golden):
  ours = sources.load('even_pixels', 'test[:400]', (8, 8, 3)).x
  for images in (golden['examples'], ours):
    hue, saturation, value = hsv(images.reshape(len(images), 64, 3) / 255)
    np.testing.assert_allclose(saturation, 1)
    np.testing.assert_allclose(value, 178 / 255)
    low, high = hue.min(1), hue.max(1)
    np.testing.assert_allclose(high - low, 0.5, atol=0.01)
  assert abs(low.mean() - 0.25) < 0.03
  assert low.min() < 0.01
  assert low.max() > 0.48


def test_an_example_depends_on_its_index_and_split_alone():
  whole, part = (sources.load('even_pixels', s, (8, 8, 3)).x for s in ('test', 'test[100:110]'))
  np.testing.assert_array_equal(whole[100:110], part)
  other = sources.load('even_pixels', 'train[100:110]', (8, 8, 3)).x
  assert np.mean(other != part) > 0.3
  places = np.mean(whole == whole[:, :1, :1], axis=0)[..., 0]
  np.testing.assert_allclose(np.delete(places.ravel(), 0), 31 / 63, atol=0.025)


@pytest.mark.parametrize('shape', [(8, 8, 1), (64, 3), (5, 5, 3)])
def test_other_shapes_are_refused(shape):
  with pytest.raises(DataError, match='even_pixels are colour images of an even number of pixels'):
    sources.load('even_pixels', 'train', shape)


def test_an_odd_number_of_pixels_has_no_half():
  with pytest.raises(ValueError, match='3 x 3 pixels have no even half'):
    evenness(np.zeros((1, 3, 3, 3), np.float32))
