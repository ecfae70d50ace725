"""Pictures of data on any grid."""

import numpy as np
import pytest

from gdm_jax import figures


def test_a_signal_is_drawn_as_its_curve():
  x = np.linspace(-2, 2, 40, dtype=np.float32).reshape(1, 40, 1)
  picture = figures.overview(x)[..., 0]
  assert picture.shape == (100, 84)
  dark = np.argwhere(picture == 0)
  lowest, highest = dark[dark[:, 1].argmin()], dark[dark[:, 1].argmax()]
  assert lowest[0] > highest[0]  # it rises from left to right
  assert len(np.unique(dark[:, 1])) == 80  # without a gap


def test_a_volume_is_drawn_slice_by_slice():
  x = np.full((1, 3, 4, 5, 1), -1, np.float32)
  x[0, 1] = 1
  picture = figures.overview(x, tile=6)[2:-2, 2:-2, 0]
  assert picture.shape == (4, 3 * 6 - 1)
  white = picture == 255
  assert white[:, 6:11].all()
  assert not white[:, :6].any()
  assert not white[:, 11:].any()


@pytest.mark.parametrize(
  'shape', [(5, 8, 8, 1), (5, 2, 1), (5, 3, 3, 3), (4, 6, 2), (2, 3, 3, 3, 2)]
)
def test_every_grid_has_a_picture(shape):
  picture = figures.overview(np.random.default_rng(0).normal(size=shape).astype(np.float32))
  assert picture.dtype == np.uint8
  assert picture.ndim == 3
  assert picture.std() > 1
