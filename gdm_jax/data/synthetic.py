"""Labelled data made by code, on grids that pictures do not have: signals and volumes."""

import numpy as np

from gdm_jax.data.base import ArraySource

LENGTH, PERIODS = 40, 5  # of a signal, samples; at most in it
SIDE = 8  # of a volume, voxels
COUNT = 4_000
SOLIDS = ('ball', 'box', 'ring')


def signals() -> ArraySource:
  """4,000 noisy waves of 40 samples: 1 to 5 periods, swelling (classes 0 to 4) or fading (5 to 9).

  Phase and amplitude are random.
  """
  rng = np.random.default_rng(0)
  label = np.arange(COUNT, dtype=np.int32) % (2 * PERIODS)
  t = np.arange(LENGTH) / LENGTH
  phase, amplitude = rng.uniform(size=(COUNT, 1)), rng.uniform(0.8, 1.6, (COUNT, 1))
  envelope = np.where(label[:, None] < PERIODS, t, 1 - t)
  wave = np.sin(2 * np.pi * ((1 + label[:, None] % PERIODS) * t + phase))
  x = amplitude * envelope * wave + 0.05 * rng.normal(size=(COUNT, LENGTH))
  return ArraySource(x[..., None].astype(np.float32), label, 2 * PERIODS)


def volumes() -> ArraySource:
  """4,000 balls, boxes and rings (classes 0 to 2) in 8 x 8 x 8 voxels, with soft edges.

  Centre and size are random; the axis of a ring is any of the three.
  """
  rng = np.random.default_rng(0)
  label = np.arange(COUNT, dtype=np.int32) % len(SOLIDS)
  centre = rng.uniform(0.35, 0.65, (COUNT, 1, 1, 1, 3)) * (SIDE - 1)
  size = rng.uniform(1.6, 2.8, (COUNT, 1, 1, 1))
  steps = np.stack(np.indices([SIDE] * 3), -1) - centre
  # The ring lies around its axis: permute the axes of the position.
  axis = rng.integers(3, size=COUNT)
  turned = np.take_along_axis(
    steps, ((np.arange(3) + axis[:, None]) % 3)[:, None, None, None], axis=-1
  )
  around = np.linalg.norm(turned[..., :2], axis=-1) - size
  distance = np.select(
    [label[:, None, None, None] == i for i in range(len(SOLIDS))],
    [
      np.linalg.norm(steps, axis=-1) - size,
      np.abs(steps).max(-1) - 0.8 * size,
      np.hypot(around, turned[..., 2]) - 0.9,
    ],
  )
  x = np.clip(-distance, -1, 1)  # -1 outside, 1 inside, in voxels from the surface
  return ArraySource(x[..., None].astype(np.float32), label, len(SOLIDS))
