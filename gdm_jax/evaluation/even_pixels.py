"""How even images of two opposite hues are (`data.even_pixels`), counted as srmbench 1.0.3 does."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

BINS = 256  # of the circle of hues
HALF, QUARTER = BINS // 2, BINS // 4


class Evenness(NamedTuple):
  """Of each image: how many pixels would have to change their hue, and the spread of the rest.

  imbalance: 0 if half of the pixels have either hue.
  saturation, value: standard deviations over the pixels; 0 in the data, and a sign of pixels that
    are between colours.
  """

  imbalance: Int[np.ndarray, ' n']
  saturation: Float[np.ndarray, ' n']
  value: Float[np.ndarray, ' n']


def evenness(x: Float[np.ndarray, 'n h w 3']) -> Evenness:
  """The evenness of images in [-1, 1] of an even number of pixels.

  A pixel counts for the most frequent of 256 hues, or for the opposite one, whichever is nearer.
  Raises ValueError for an odd number of pixels.
  """
  count = x.shape[1] * x.shape[2]
  if count % 2:
    raise ValueError(f'images of {x.shape[1]} x {x.shape[2]} pixels have no even half')
  hue, saturation, value = hsv(np.clip((x + 1) / 2, 0, 1).reshape(len(x), count, 3))
  bins = np.minimum(np.floor(hue * BINS).astype(int), BINS - 1)
  peaks = np.array([np.argmax(np.bincount(row, minlength=BINS)) for row in bins])
  # Half of the circle, about the peak or its opposite.
  near = (bins - peaks[:, None] % HALF - QUARTER) % BINS < HALF
  return Evenness(np.abs(near.sum(1) - count // 2), saturation.std(1), value.std(1))


def hsv(rgb: Float[np.ndarray, '*n 3']) -> tuple[Float[np.ndarray, '*n'], ...]:
  """Hue, saturation and value in [0, 1] of colours in [0, 1]; the hue of greys is 0."""
  value, least = rgb.max(-1), rgb.min(-1)
  spread = value - least
  safe = np.where(spread > 0, spread, 1)
  r, g, b = np.moveaxis(rgb, -1, 0)
  # The last that applies wins where two are the largest, as in matplotlib.
  sector = np.select(
    [value == b, value == g], [4 + (r - g) / safe, 2 + (b - r) / safe], (g - b) / safe
  )
  hue = np.where(spread > 0, sector / 6 % 1, 0).astype(rgb.dtype)
  return hue, np.where(value > 0, spread / np.where(value > 0, value, 1), 0), value
