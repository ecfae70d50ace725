"""Signals and volumes made by code: labelled as they say, and the same every time."""

import numpy as np

from gdm_jax.data import sources, synthetic


def test_a_signals_class_is_its_periods_and_its_envelope():
  data = sources.load('signals', 'train', (40, 1))
  assert (len(data), data.num_classes) == (4_000, 10)
  x = data.x[..., 0]
  spectrum = np.abs(np.fft.rfft(x - x.mean(1, keepdims=True)))
  # A swelling wave leaks into neighbouring frequencies, but not further.
  assert np.mean(np.abs(spectrum.argmax(1) - (1 + data.label % 5)) <= 1) > 0.99
  swells = (x[:, 20:] ** 2).sum(1) > (x[:, :20] ** 2).sum(1)
  assert np.mean(swells == (data.label < 5)) > 0.98
  np.testing.assert_array_equal(x, synthetic.signals().x[..., 0])


def test_volumes_are_solids_of_which_rings_have_a_hole():
  data = sources.load('volumes', 'train', (8, 8, 8, 1))
  assert (len(data), data.num_classes) == (4_000, 3)
  assert data.x.min() == -1
  assert data.x.max() <= 1
  inside = data.x[..., 0] > 0
  assert inside.reshape(len(inside), -1).any(1).all()
  # The voxel next to the centre of gravity of a ball or a box is inside, that of a ring is not.
  grid = np.stack(np.indices((8, 8, 8)), -1)
  centre = (inside[..., None] * grid).sum((1, 2, 3)) / inside.sum((1, 2, 3))[:, None]
  nearest = np.rint(centre).astype(int)
  filled = inside[np.arange(len(inside)), *nearest.T]
  assert filled[data.label < 2].all()
  assert np.mean(filled[data.label == 2]) < 0.1
