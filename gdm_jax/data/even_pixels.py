"""Even pixels: images in which half of the pixels have one hue and half the opposite one.

The benchmark of Spatial Reasoning Models (Wewer et al. 2025). Saturation and value are constant, so
a sample is right or wrong by a count over the whole image.
"""

import functools

import numpy as np
import tqdm
from jaxtyping import Int, UInt8
from PIL import Image

from gdm_jax.data.base import Batch, LazySource
from gdm_jax.data.contents import digest
from gdm_jax.runtime.errors import DataError

SPLITS = {'train': 100_000, 'test': 10_000}
SATURATION, VALUE = 255, 178  # of every pixel, of 255
HALF_TURN = 0.5  # between the two hues


def open_even_pixels(split: str, shape: tuple[int, ...]) -> LazySource:
  """A split of even pixels, of any size with an even number; example i depends on i alone.

  The first hue is uniform in [0, 0.5), the second the opposite one, and the places are a uniform
  half. Raises DataError for a shape that is none of colour images, or has an odd number of pixels.
  """
  if len(shape) != 3 or shape[-1] != 3 or shape[0] * shape[1] % 2:
    raise DataError(
      f'data.shape={shape}: even_pixels are colour images of an even number of pixels, as 8,8,3'
    )
  stream = list(SPLITS).index(split)

  def read(records: Int[np.ndarray, ' b'], progress: bool) -> Batch:
    x = np.empty((len(records), *shape), np.uint8)
    disable = None if progress else True
    for i, record in enumerate(tqdm.tqdm(records, 'even pixels', disable=disable, delay=2)):
      x[i] = _example(np.random.default_rng((stream, int(record))), shape)
    return {'x': x, 'label': np.zeros(len(records), np.int32)}

  def identify(records):
    return digest(['even_pixels', split, shape, records.tobytes()])

  return LazySource(np.arange(SPLITS[split]), shape, 0, read, lambda records: None, identify)


def _example(rng, shape) -> UInt8[np.ndarray, 'h w 3']:
  first = rng.uniform(0, HALF_TURN)
  hues = np.array([first, first + HALF_TURN])
  chosen = np.arange(shape[0] * shape[1]) % 2
  rng.shuffle(chosen)
  return _colours()[(255 * hues).astype(np.uint8)][chosen].reshape(shape)


@functools.cache
def _colours() -> UInt8[np.ndarray, '256 3']:
  """The RGB of every hue of 0..255."""
  hsv = np.stack([np.arange(256), np.full(256, SATURATION), np.full(256, VALUE)], -1)
  return np.asarray(
    Image.frombytes('HSV', (256, 1), hsv.astype(np.uint8).tobytes()).convert('RGB')
  )[0]
