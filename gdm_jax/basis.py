"""Bases: the orthogonal U of GDM-F (Section 3.4), a Kronecker product of one matrix per axis.

U is only ever applied axis by axis, O(H W (H + W)) for an image, never as a d x d matrix.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from gdm_jax.typing import AnyArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Basis:
  """An orthogonal basis of the grid.

  factors: one orthogonal [n, n] matrix per axis, modes in columns; empty for the pixel basis,
    whose U is the identity.
  ranks: the place of every coefficient in the ranking, 0 = the lowest frequency.
  """

  factors: tuple[Float[AnyArray, '_ _'], ...]
  ranks: Int[AnyArray, '*grid']

  @property
  def shape(self) -> tuple[int, ...]:
    """The grid."""
    return self.ranks.shape

  @property
  def is_pixel(self) -> bool:
    """Whether U is the identity, so that coefficients are pixels."""
    return not self.factors

  def analyze(self, x: Float[AnyArray, '*batch_grid c']) -> Float[AnyArray, '*batch_grid c']:
    """Coefficients U^T x of data [..., *grid, channels]; laid out as the grid of modes."""
    return _apply([f.T for f in self.factors], x)

  def synthesize(self, c: Float[AnyArray, '*batch_grid c']) -> Float[AnyArray, '*batch_grid c']:
    """Data U c of coefficients [..., *grid, channels]."""
    return _apply(self.factors, c)


def _apply(factors, x):
  first = x.ndim - 1 - len(factors)
  for axis, factor in enumerate(factors, first):
    # Full precision: TF32 or bfloat16 products would lose U^T U = I.
    x = jnp.tensordot(x, jnp.asarray(factor, x.dtype), (axis, 1), precision='highest')
    x = jnp.moveaxis(x, -1, axis)
  return x


def pixel(shape: Sequence[int]) -> Basis:
  """The identity: groups of pixels (GDM). Ranks are the raster order."""
  return Basis((), np.arange(math.prod(shape), dtype=np.int32).reshape(shape))


def cosine(shape: Sequence[int]) -> Basis:
  """The orthonormal DCT-II, ranked by frequency sum_a (i_a / n_a)^2, lowest first.

  The ranking compares exact integers, so it is the same on every platform; equal frequencies
  keep the raster order.
  """
  scale = math.lcm(*shape)
  squares = [(np.arange(n, dtype=np.int64) * (scale // n)) ** 2 for n in shape]
  return Basis(tuple(_cosine_modes(n) for n in shape), _rank(_outer_sum(squares)))


def _cosine_modes(n):
  modes = np.cos(np.pi * np.arange(n) * (np.arange(n)[:, None] + 0.5) / n) * np.sqrt(2 / n)
  modes[:, 0] = np.sqrt(1 / n)
  return modes


def _outer_sum(per_axis):
  return sum(np.ix_(*per_axis))


def _rank(keys):
  ranks = np.empty(keys.size, np.int32)
  ranks[np.argsort(keys.ravel(), kind='stable')] = np.arange(keys.size)
  return ranks.reshape(keys.shape)


def blur(shape: Sequence[int], sigma: float = 0.4, boundary: str = 'zero') -> Basis:
  """The eigenvectors of the separable Gaussian blur W = U D U^T (Appendix A.4).

  Coefficients are ranked by descending eigenvalue product, i.e. by how well they survive the
  blur; equal products, such as (i, j) and (j, i), keep the raster order.

  boundary: what the blur sees outside the grid.
    'zero' (default): zeros, as in the paper's reference (Lee et al. 2022). W is Toeplitz, its modes
      are near sines, and the lowest is a half sine.
    'reflect': the grid mirrored about its edge. The modes are the cosines, with a true DC, whatever
      sigma is; only the ranking depends on it. A flat image is then one coefficient, and images
      have no artificial jump at their border.

  sigma: the standard deviation, in grid steps; 0.4 is the reference's.

  Raises ValueError if sigma is not positive, for an unknown boundary, and for a sigma with which
  the zero boundary's smallest eigenvalues are below float64's resolution, so that its modes are not
  determined.
  """
  if not sigma > 0:
    raise ValueError(f'blur: sigma = {sigma} must be positive')
  if boundary not in ('reflect', 'zero'):
    raise ValueError(f"blur: boundary = {boundary!r} must be 'reflect' or 'zero'")
  modes = _reflected_blur_modes if boundary == 'reflect' else _zero_padded_blur_modes
  factors, log_eigenvalues = zip(*(modes(n, sigma) for n in shape), strict=True)
  # Rounded, so that products equal in exact arithmetic do not split by the last bit of a log.
  return Basis(factors, _rank(-np.round(_outer_sum(log_eigenvalues), 9)))


def _reflected_blur_modes(n, sigma):
  # The sampled Gaussian's transfer function at pi m / n is a sum over aliases (Poisson), which
  # keeps its relative precision even if the eigenvalue itself is 1e-30.
  reach = 2 + math.ceil(1.5 / sigma)
  aliases = np.pi * np.arange(n)[:, None] / n + 2 * np.pi * np.arange(-reach, reach + 1)
  logs = np.logaddexp.reduce(-0.5 * (sigma * aliases) ** 2, axis=1)
  return _cosine_modes(n), logs


def _zero_padded_blur_modes(n, sigma):
  distance = np.arange(n)[:, None] - np.arange(n)
  values, modes = np.linalg.eigh(np.exp(-0.5 * (distance / sigma) ** 2))
  values, modes = values[::-1], modes[:, ::-1]
  if values[-1] < 1e-12 * values[0]:
    raise ValueError(
      f'blur: sigma = {sigma} with a zero boundary on an axis of {n}: the smallest eigenvalues '
      "vanish in float64; take sigma below 2 or boundary='reflect'"
    )
  return modes * np.where(modes[0] < 0, -1, 1), np.log(values)


BASES: dict[str, Callable[..., Basis]] = {'pixel': pixel, 'cosine': cosine, 'blur': blur}
"""By the name in a config's `basis.name`; called with the grid and the options in the config's
section of that name, if it has one."""
