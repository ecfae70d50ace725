"""Edits of latents, coefficient by coefficient: what a hierarchy of bands is good for (Section 4).

z is noise in pixel space, [..., *grid, channels]; `mask` selects coefficients, bool [*grid, 1] or
[*grid, channels], from `groups` or `band`. Nothing outside the mask changes, except by rounding.
The pair of a reversible solver is edited leaf by leaf: `jax.tree.map(lambda z, y: swap(basis, z, y,
mask)[0], pair, other)`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from gdm_jax.basis import Basis
from gdm_jax.grouping import Grouping
from gdm_jax.typing import AnyArray, Scalar

Latent = Float[AnyArray, '*batch_grid c']
Mask = Bool[AnyArray, '*grid _']


def groups(grouping: Grouping, numbers: Sequence[int]) -> Mask:
  """The coefficients of some groups. Raises ValueError for a number that is no group's."""
  if not all(0 <= number < grouping.num_groups for number in numbers):
    raise ValueError(f'groups {tuple(numbers)}: there are 0 to {grouping.num_groups - 1}')
  return jnp.isin(grouping.of_elements, jnp.asarray(numbers, int))


def band(basis: Basis, first: int, last: int) -> Mask:
  """The coefficients of ranks [first, last), per channel. Raises ValueError for an empty band."""
  d = basis.ranks.size
  if not 0 <= first < last <= d:
    raise ValueError(f'band [{first}, {last}): ranks are 0 to {d}, the last one excluded')
  return ((basis.ranks >= first) & (basis.ranks < last))[..., None]


def swap(basis: Basis, z: Latent, other: Latent, mask: Mask) -> tuple[Latent, Latent]:
  """Both latents, the selected coefficients of each in the other (Fig. 7)."""
  a, b = basis.analyze(z), basis.analyze(other)
  first, second = jnp.where(mask, b, a), jnp.where(mask, a, b)
  return basis.synthesize(first), basis.synthesize(second)


def interpolate(
  basis: Basis,
  z: Latent,
  other: Latent,
  weight: Scalar,
  mask: Mask,
  spherical: bool = True,
) -> Latent:
  """z with its selected coefficients a fraction `weight` of the way to those of `other` (Fig. 3).

  spherical: along the great circle, each example's selected coefficients being one vector, so that
  a point between two Gaussian latents has the norm of one (Shoemake 1985). Otherwise, and if they
  point in the same or in opposite directions, along the line.
  """
  axes = tuple(range(-1 - len(basis.shape), 0))
  a, b = basis.analyze(z), basis.analyze(other)
  weight_a, weight_b = 1 - weight, weight
  if spherical:

    def total(c):
      return jnp.sum(jnp.where(mask, c, 0), axes, keepdims=True)

    lengths = jnp.sqrt(total(a**2) * total(b**2))
    cosine = jnp.clip(total(a * b) / jnp.maximum(lengths, jnp.finfo(a.dtype).tiny), -1, 1)
    angle = jnp.arccos(cosine)
    sine = jnp.sin(angle)
    curved = sine > jnp.sqrt(jnp.finfo(a.dtype).eps)
    safe = jnp.where(curved, sine, 1)
    weight_a = jnp.where(curved, jnp.sin((1 - weight) * angle) / safe, weight_a)
    weight_b = jnp.where(curved, jnp.sin(weight * angle) / safe, weight_b)
  return basis.synthesize(jnp.where(mask, weight_a * a + weight_b * b, a))


def traverse(
  basis: Basis, z: Latent, rank: int, channel: int, values: Float[AnyArray, ' n']
) -> Float[AnyArray, 'n *batch_grid c']:
  """z with one coefficient set to each of the values (Fig. 6, 8: -3 to 3).

  Raises ValueError for a rank or a channel that does not exist.
  """
  channels = z.shape[-1]
  if not 0 <= channel < channels:
    raise ValueError(f'channel {channel}: there are 0 to {channels - 1}')
  mask = band(basis, rank, rank + 1) & (jnp.arange(channels) == channel)
  c = basis.analyze(z)
  return jax.vmap(lambda value: basis.synthesize(jnp.where(mask, value, c)))(jnp.asarray(values))


def resample(basis: Basis, z: Latent, noise: Latent, mask: Mask) -> Latent:
  """z with its selected coefficients taken from fresh noise in pixel space (Fig. 9)."""
  return swap(basis, z, noise, mask)[0]


def keep(basis: Basis, z: Latent, count: int) -> Latent:
  """z with all but the `count` lowest ranks, per channel, at 0, their mean (Fig. 4b).

  Raises ValueError for fewer than none or more than all.
  """
  if not 0 <= count <= basis.ranks.size:
    raise ValueError(f'{count} components kept: there are 0 to {basis.ranks.size}')
  return resample(basis, z, jnp.zeros_like(z), (basis.ranks >= count)[..., None])
