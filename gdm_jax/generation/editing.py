"""Lines of edited latents, each picture with its caption: what --mode=edit and Fig. 3 to 9 show.

z: latents of n images, [n, *grid, channels], or a `solvers.ReversiblePair`; names: of the images;
masks: by their captions, the coefficients that an edit changes (`latents.groups`, `latents.band`).
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from gdm_jax import latents
from gdm_jax.basis import Basis
from gdm_jax.build import System
from gdm_jax.latents import Latent, Mask
from gdm_jax.solvers import ReversiblePair


class Picture(NamedTuple):
  """The caption of a picture, and the latent to decode for it, without a batch axis."""

  caption: str
  z: Latent | ReversiblePair


class Line(NamedTuple):
  """Pictures side by side."""

  caption: str
  pictures: list[Picture]


class Encoded(NamedTuple):
  """Encoded images, and what an operation may edit of them."""

  basis: Basis
  z: Latent | ReversiblePair
  names: Sequence[str]
  masks: Mapping[str, Mask]
  draw_noise: Callable[[], Float[np.ndarray, 'variants *grid c']]


OPERATIONS: dict[str, Callable[[Encoded, ConfigDict], list[Line]]] = {
  'reconstruct': lambda e, c: [],
  'mix': lambda e, c: mix(e.basis, e.z, e.names, e.masks),
  'interpolate': lambda e, c: interpolate(e.basis, e.z, e.names, e.masks, c.weights, c.spherical),
  'traverse': lambda e, c: traverse(e.basis, e.z, e.names, c.ranks, c.channel, c.strengths),
  'vary': lambda e, c: vary(
    e.basis, e.z, e.names, e.masks if c.groups or c.band else lowest(e.masks), e.draw_noise()
  ),
}
"""By `edit.operation`; the second argument is `config.edit`."""


def masks(system: System, strategy: str) -> dict[str, Mask]:
  """The groups of a strategy by caption: their ranks if they are bands."""
  process = system.process
  refined = np.asarray(process.grouping.of_elements)
  labels = np.asarray(system.strategies[strategy].indices)[refined]
  ranks_of_elements = np.broadcast_to(np.asarray(process.basis.ranks)[..., None], labels.shape)
  groups = {}
  for group in range(system.strategies[strategy].num_groups):
    inside = labels == group
    ranks = np.sort(ranks_of_elements[inside])
    whole = not process.grouping.by_channel  # a band holds all channels
    band = not process.basis.is_pixel and whole and ranks[-1] - ranks[0] + 1 == len(ranks)
    name = f'[{ranks[0]}, {ranks[-1]}]' if band else f'group {group}'
    groups[name] = jnp.asarray(inside)
  return groups


def mix(
  basis: Basis, z: Latent | ReversiblePair, names: Sequence[str], masks: Mapping[str, Mask]
) -> list[Line]:
  """Images two by two: each with the other's coefficients of each mask in turn (Fig. 7)."""

  def exchanged(mask, p, q):
    return latents.swap(basis, p, q, mask)[0]

  lines = []
  for a, b in _pairs(names):
    for i, j in ((a, b), (b, a)):
      pictures = [
        Picture(name, _edit(functools.partial(exchanged, mask), _at(z, i), _at(z, j)))
        for name, mask in masks.items()
      ]
      pair = Picture('original', _at(z, i)), Picture('reference', _at(z, j))
      lines.append(Line(f'{names[i]} with {names[j]}', [*pair, *pictures]))
  return lines


def interpolate(
  basis: Basis,
  z: Latent | ReversiblePair,
  names: Sequence[str],
  masks: Mapping[str, Mask],
  weights: Sequence[float],
  spherical: bool = True,
) -> list[Line]:
  """Images two by two: from the first to the second, one mask a line (Fig. 3)."""

  def part_way(weight, mask, p, q):
    return latents.interpolate(basis, p, q, weight, mask, spherical)

  return [
    Line(
      f'{names[a]} to {names[b]}\n{name}',
      [
        Picture(f'{w:g}', _edit(functools.partial(part_way, w, mask), _at(z, a), _at(z, b)))
        for w in weights
      ],
    )
    for a, b in _pairs(names)
    for name, mask in masks.items()
  ]


def traverse(
  basis: Basis,
  z: Latent | ReversiblePair,
  names: Sequence[str],
  ranks: Sequence[int],
  channel: int,
  values: Sequence[float],
) -> list[Line]:
  """Every image with one coefficient at each of the values, a rank a line (Fig. 6, 8)."""
  lines = []
  for i, name in enumerate(names):
    for rank in ranks:
      path = _edit(
        lambda p, r=rank: latents.traverse(basis, p, r, channel, jnp.asarray(values)), _at(z, i)
      )
      pictures = [Picture(f'{value:g}', _at(path, n)) for n, value in enumerate(values)]
      lines.append(Line(f'{name}\nrank {rank}', [Picture('original', _at(z, i)), *pictures]))
  return lines


def vary(
  basis: Basis,
  z: Latent | ReversiblePair,
  names: Sequence[str],
  masks: Mapping[str, Mask],
  noise: Float[np.ndarray, 'variants *grid c'],
) -> list[Line]:
  """Every image with all but a mask's coefficients redrawn, a mask a line (Fig. 9)."""
  lines = []
  for i, name in enumerate(names):
    for caption, mask in masks.items():
      pictures = [
        Picture(
          f'{n + 1}',
          _edit(lambda p, m=mask, fresh=fresh: latents.resample(basis, p, fresh, ~m), _at(z, i)),
        )
        for n, fresh in enumerate(noise)
      ]
      lines.append(Line(f'{name}\nkept {caption}', [Picture('original', _at(z, i)), *pictures]))
  return lines


def keep(
  basis: Basis, z: Latent | ReversiblePair, names: Sequence[str], counts: Sequence[int]
) -> list[Line]:
  """Every image from its `count` lowest latents alone, an image a line (Fig. 4b)."""
  return [
    Line(
      name,
      [
        Picture(f'{count}', _edit(lambda p, n=count: latents.keep(basis, p, n), _at(z, i)))
        for count in counts
      ],
    )
    for i, name in enumerate(names)
  ]


def lowest(masks: Mapping[str, Mask]) -> dict[str, Mask]:
  """The first mask, the first two and so on, but not all: what variations keep."""
  names = list(masks)
  return {
    ' '.join(names[:count]): union([masks[name] for name in names[:count]])
    for count in range(1, len(names))
  }


def union(masks: Iterable[Mask]) -> Mask:
  """The coefficients of any of the masks."""
  return functools.reduce(jnp.logical_or, masks)


def decoded(
  lines: Sequence[Line], decode: Callable[[Latent | ReversiblePair], Float[np.ndarray, 'n *grid c']]
) -> list[tuple[str, list[tuple[str, Float[np.ndarray, '*grid c']]]]]:
  """The lines with their pictures, all decoded together; as `figures.sheet` takes them."""
  if not lines:
    return []
  edited = [picture.z for line in lines for picture in line.pictures]
  x = iter(decode(jax.tree.map(lambda *parts: np.stack(parts), *edited)))
  return [
    (line.caption, [(picture.caption, next(x)) for picture in line.pictures]) for line in lines
  ]


def _pairs(names):
  if len(names) % 2:
    raise ValueError(f'{len(names)} images cannot be taken two by two')
  return zip(range(0, len(names), 2), range(1, len(names), 2), strict=True)


def _at(z, i):
  return jax.tree.map(lambda leaf: leaf[i], z)


def _edit(function, *z):
  """An edit of single latents; of both members of a reversible solver's pair alike."""
  return jax.tree.map(function, *z)
