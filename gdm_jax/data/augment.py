"""EDM's geometric augmentation (Karras et al. 2022, Appendix F.2, Table 6).

Flips mirror the image; all other transforms are one affine map about its centre, with reflection
outside the image. The labels tell the network what was done to an image, so that labels 0 give
images to which nothing was done. Positions are (x, y), x to the right and y down.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import ndimage
from jaxtyping import Float

from gdm_jax.typing import AnyArray, Scalar

LABELS = (
  *('x flip', 'y flip', 'scale', 'cos(angle) - 1', 'sin(angle)'),
  *('stretch cos(direction)', 'stretch sin(direction)', 'x shift', 'y shift'),
)

OCTAVES = 0.2  # log2 of the scale, and of the stretch, for one standard deviation
FRAME_TURNED = 0.5  # probability that a stretch is not along the x axis
SHIFT = 1 / 8  # of a side, for one standard deviation
MOMENTS = 6  # of the filter: those of sym6
RADIUS = 10  # taps of the filter on either side; further ones are below 2e-5 of the middle one


def augment(
  key: jax.Array, x: Float[AnyArray, 'b h w c'], probability: Scalar
) -> tuple[Float[AnyArray, 'b h w c'], Float[AnyArray, 'b 9']]:
  """Images [-1, 1], each transformed at random, and their LABELS.

  Each transform is drawn with `probability`, independently for each image. A drawn y flip is
  applied with probability 1/2; the x flip always is, unless `probability` is 0. Transforms that are
  not applied have labels 0. An image that is only flipped is exact to the bit; others can leave
  [-1, 1] slightly, as the filters overshoot at edges.
  """
  batch, height, width, _ = x.shape
  keys = jax.random.split(key, 4)
  flips, scales, turns, stretches, shifts = jax.random.bernoulli(keys[0], probability, (5, batch))
  x_coin, y_coin = jax.random.bernoulli(keys[1], shape=(2, batch))
  normals = jax.random.normal(keys[2], (4, batch), x.dtype)
  angle, direction = jax.random.uniform(keys[3], (2, batch), x.dtype, -math.pi, math.pi)

  x_flip, y_flip = x_coin & (probability > 0), y_coin & flips
  scale, stretch = jnp.where(scales, normals[0], 0), jnp.where(stretches, normals[1], 0)
  angle = jnp.where(turns, angle, 0)
  turned = jax.random.bernoulli(jax.random.fold_in(keys[3], 0), FRAME_TURNED, (batch,))
  direction = jnp.where(turned, direction, 0)
  shift = jnp.where(shifts, normals[2:], 0)
  # As in EDM, (stretch, direction) and (-stretch, direction + pi) share labels, not transforms.
  along = stretch * jnp.stack([jnp.cos(direction), jnp.sin(direction)])
  labels = [x_flip, y_flip, scale, jnp.cos(angle) - 1, jnp.sin(angle), *along, *shift]
  labels = jnp.stack(labels, axis=-1)

  x = jnp.where(_per_image(x_flip), x[:, :, ::-1], x)
  x = jnp.where(_per_image(y_flip), x[:, ::-1], x)
  offset = SHIFT * shift.T * jnp.array([width, height], x.dtype)
  warped = warp(x, _source(scale, angle, stretch, direction, offset))
  return jnp.where(_per_image(labels[:, 2:].any(-1)), warped, x), labels


def _per_image(flag):
  return flag[:, None, None, None]


@jax.default_matmul_precision('highest')
def _source(scale, angle, stretch, direction, offset):
  """The inverse of: scale, turn counterclockwise, stretch, then move (`G_inv` in EDM's code).

  The stretch is along `direction`, counterclockwise from the x axis, y being down.
  """
  frame, growth = _rotation(-direction), 2 ** (OCTAVES * stretch)
  narrow = frame * jnp.stack([1 / growth, growth], -1)[:, None] @ frame.mT
  linear = 2 ** (-OCTAVES * scale)[:, None, None] * _rotation(angle) @ narrow
  return jnp.concatenate([linear, -linear @ offset[:, :, None]], axis=-1)


def _rotation(angle):
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], axis=-2)


@jax.default_matmul_precision('highest')  # others round positions, or smooth the image
def warp(
  x: Float[AnyArray, 'b h w c'], source: Float[AnyArray, 'b 2 3']
) -> Float[AnyArray, 'b h w c']:
  """Images whose pixel at (x, y) is that of `x` at source @ (x, y, 1), in pixels from the centre.

  Up to twice the resolution, linear interpolation there, and down again. Outside, the image is
  mirrored about the middle of its outermost pixels, repeatedly.
  """
  height, width = x.shape[1:3]
  (up_y, down_y), (up_x, down_x) = (_resampling(n, x.dtype) for n in (height, width))
  rows, columns = (jnp.arange(-RADIUS, 2 * n - 1 + RADIUS) - (n - 1) for n in (height, width))
  fine = jnp.einsum('yh,bhwc,xw->byxc', up_y, x, up_x)

  def read(image, source):
    # In half pixels from the centre, as rows and columns are.
    across, down = (a * columns + b * rows[:, None] + 2 * c for a, b, c in source)
    places = [down + height - 1, across + width - 1]
    plane = functools.partial(ndimage.map_coordinates, coordinates=places, order=1, mode='mirror')
    return jax.vmap(plane, in_axes=-1, out_axes=-1)(image)

  return jnp.einsum('hy,byxc,wx->bhwc', down_y, jax.vmap(read)(fine, source), down_x)


def _resampling(size, dtype):
  """To 2 size - 1 samples, every other one at a pixel; and back from RADIUS more on both sides."""
  pixels = np.arange(-RADIUS, size + RADIUS)
  fine = np.arange(-RADIUS, 2 * size - 1 + RADIUS)
  mirrored = np.pad(np.eye(size), ((RADIUS, RADIUS), (0, 0)), 'reflect')
  up = _lowpass(fine[RADIUS:-RADIUS, None] - 2 * pixels) @ mirrored
  down = _lowpass(fine - 2 * np.arange(size)[:, None])
  return jnp.asarray(up, dtype), jnp.asarray(down, dtype)


def _lowpass(distance):
  """Taps at distances in half pixels; every row sums to 1, which preserves constant images.

  EDM filters with the wavelet sym6. This is the filter of the same gain without its phase, so it
  is even, and turns and flips commute with it. Up and then down is the identity.
  """
  square = np.sin(np.linspace(0, np.pi / 2, 513)) ** 2
  half_band = sum(math.comb(MOMENTS - 1 + k, k) * square**k for k in range(MOMENTS))
  taps = np.fft.irfft(np.sqrt(half_band * (1 - square) ** MOMENTS))
  distance = np.abs(distance)
  weights = np.where(distance <= RADIUS, taps[np.minimum(distance, RADIUS)], 0)
  return weights / weights.sum(1, keepdims=True)
