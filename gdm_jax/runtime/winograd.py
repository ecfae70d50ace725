"""3 x 3 convolutions by Winograd's minimal filtering F(4 x 4, 3 x 3) (Lavin and Gray 2016).

Four outputs y of a filter g of three taps see six inputs d, and y = A (G g * B d) takes six
products rather than twelve; along both axes 4 x 4 outputs take 36 rather than 144. The products are
summed over channels, so they are 36 products of matrices. XLA's convolutions on a CPU are direct,
at the rate of its matrix products, so with many channels these are about twice as fast.

All of it is linear algebra that jax differentiates in either mode.
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from gdm_jax.runtime import machine
from gdm_jax.typing import AnyArray

# The points at which polynomials are evaluated, besides infinity. In float32, with 256 to 512
# channels, errors are below 5e-6 of the largest value; direct ones are below 1e-6, but 4e-6 for the
# kernel's gradient. With the common 0, 1, -1, 2, -2 they are three times as large.
POINTS = 0, 2 / 3, -2 / 3, 3 / 2, -3 / 2
TILES = 128  # at a time on a device of one core; twice and half as many are as fast


def _powers(n):
  """The values at `POINTS` and infinity of the monomials of degrees below n."""
  return np.vstack([np.vander(POINTS, n, increasing=True), np.eye(n)[-1]])


A, G, B = _powers(4).T, _powers(3), np.linalg.inv(_powers(6)).T
B[np.abs(B) < 1e-9] = 0  # zeros but for rounding


def conv_general_dilated(x, kernel, *window, **options):
  """`jax.lax.conv_general_dilated` of a 3 x 3 kernel, stride 1 and 'SAME', as `nn.Conv` calls it.

  On a CPU it is `convolve` if that pays; otherwise XLA's own.
  """

  def direct(x, kernel):
    return lax.conv_general_dilated(x, kernel, *window, **options)

  if not pays(x, kernel):
    return direct(x, kernel)
  return lax.platform_dependent(x, kernel, cpu=convolve, default=direct)


def pays(x: Float[AnyArray, 'b h w c'], kernel: Float[AnyArray, '3 3 c d']) -> bool:
  """Whether `convolve` is faster on a CPU, as measured, and exact enough.

  Few tiles, of all devices together, do not outweigh the transforms of the kernel; and the gain
  must repay the longer compilation. A jax_default_matmul_precision of 'highest' keeps convolutions
  direct.
  """
  tiles, channels = len(x) * _tiles_of_image(x), 32 if _one_core_each() else 128
  default = jax.config.jax_default_matmul_precision != 'highest'
  enough = tiles >= 128 and tiles * math.prod(kernel.shape[2:]) > 2**21
  return x.dtype == jnp.float32 and default and enough and min(kernel.shape[2:]) >= channels


@jax.checkpoint  # a derivative keeps x and the kernel, not what they are transformed into
def convolve(
  x: Float[AnyArray, 'b h w c'], kernel: Float[AnyArray, '3 3 c d']
) -> Float[AnyArray, 'b h w d']:
  """The convolution with stride 1 and zero padding, `jax.lax.conv_general_dilated`'s 'SAME'.

  A device of one core takes a few images at a time, whose tiles fit its cache: with 64 channels at
  28 x 28 that makes a layer and its gradients three times as fast as XLA's.
  """
  kernel = jnp.stack(_combine(G, _unstack(kernel, 1)))  # j 3 c d
  kernel = jnp.stack(_combine(G, _unstack(kernel, 1)))  # i j c d
  kernel = kernel.reshape(36, *kernel.shape[2:])
  devices, images = _parts(x) if _one_core_each() else (1, len(x))
  steps = len(x) // (devices * images)
  if steps == 1:
    return _filter(x, kernel)

  # An axis for the devices, over which the batch is divided: they share nothing but the sum of the
  # kernel's gradients.
  kernels = jnp.broadcast_to(kernel, (devices, *kernel.shape))

  def exchanged(x, first, second):
    """Images that are in the order [first, second, images], as [second, first * images]."""
    if min(first, second) > 1:
      x = x.reshape(first, second, images, *x.shape[-3:]).swapaxes(0, 1)
    return x.reshape(second, first * images, *x.shape[-3:])

  def step(_, x):
    y = jax.vmap(jax.checkpoint(_filter))(x.reshape(devices, images, *x.shape[1:]), kernels)
    return None, y.reshape(devices * images, *y.shape[2:])

  y = lax.scan(step, None, exchanged(x, devices, steps))[1]
  return exchanged(y, steps, devices).reshape(*x.shape[:3], -1)


def _one_core_each():
  """Whether images are taken a few at a time; several cores are faster with all of them at once."""
  return machine.have_one_core(jax.local_device_count())


def _parts(x):
  """Over how many devices the batch is divided, and how many images each takes at a time."""
  # In a `shard_map` x is one device's share of the batch already.
  devices = 1 if jax.sharding.get_abstract_mesh().manual_axes else jax.device_count()
  devices = devices if len(x) % devices == 0 else 1
  share, tiles = len(x) // devices, _tiles_of_image(x)
  counts = (n for n in range(1, share + 1) if share % n == 0)
  return devices, next(n for n in counts if n * tiles >= TILES or n == share)


def _tiles_of_image(x):
  height, width = x.shape[1:3]
  return -(-height // 4) * -(-width // 4)


def _filter(x, kernel):
  """The convolution of images with a transformed kernel, [36, c, d]."""
  height, width = x.shape[1:3]
  x = jnp.stack(_combine(B, _tiles(x, 2)))  # j b h w/4 c
  x = jnp.stack(_combine(B, _tiles(x, 2)))  # i j b h/4 w/4 c
  # One axis of tiles: with three the gradients take XLA a fifth longer.
  y = jnp.einsum('ntc,ncd->ntd', x.reshape(36, -1, x.shape[-1]), kernel)
  y = y.reshape(*x.shape[:-1], kernel.shape[-1])
  y = jnp.stack(_combine(A, _unstack(y, 0)), 3)  # j b h/4 4 w/4 d
  y = jnp.stack(_combine(A, _unstack(y, 0)), 4)  # b h/4 4 w/4 4 d
  batch, rows, _, columns, _, channels = y.shape
  return y.reshape(batch, 4 * rows, 4 * columns, channels)[:, :height, :width]


def _tiles(x, axis):
  """What each four outputs along an axis see: six arrays, a quarter as long, of its elements."""
  size = x.shape[axis]
  padding = [(0, 0)] * x.ndim
  padding[axis] = 1, 3 + -size % 4
  blocks = jnp.pad(x, padding).reshape(*x.shape[:axis], -1, 4, *x.shape[axis + 1 :])
  count = blocks.shape[axis] - 1
  first_four = lax.slice_in_dim(blocks, 0, count, axis=axis)
  next_two = lax.slice_in_dim(lax.slice_in_dim(blocks, 1, None, axis=axis), 0, 2, axis=axis + 1)
  return _unstack(first_four, axis + 1) + _unstack(next_two, axis + 1)


def _unstack(x, axis):
  # Not by indices: a split's derivative is one concatenation, theirs a padding for each.
  return [lax.squeeze(part, (axis,)) for part in jnp.split(x, x.shape[axis], axis)]


def _combine(matrix, parts):
  """The product of a matrix and a vector of arrays, without what is zero."""
  rows = ([float(c) * part for c, part in zip(row, parts, strict=True) if c] for row in matrix)
  return [functools.reduce(operator.add, row) for row in rows]
