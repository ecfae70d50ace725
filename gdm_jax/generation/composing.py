"""Latents put together: of each group a seed's, a picture's, or one between two; then single ranks.

`sampling.latents` and `sampling.ranks` describe them, and so does the page of --mode=explore.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer
from ml_collections import ConfigDict

from gdm_jax import build, latents
from gdm_jax.build import System
from gdm_jax.config import blaming
from gdm_jax.generation import editing
from gdm_jax.generation.generator import Generator, Rows
from gdm_jax.solvers import ReversiblePair

OWN = 'seed'
"""The source that is each image's own seed."""

NUMBER = r'[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?'

Source = int | str
"""Where a latent comes from: a seed, OWN, or a picture by its file or id."""

Latent = Float[np.ndarray, 'n *grid c'] | ReversiblePair
Ranks = dict[tuple[int, int], float]
"""Values of coefficients by (rank, channel)."""


class Pick(NamedTuple):
  """The latent of a group: a fraction `at` of the great circle from one source to the other."""

  start: Source
  end: Source
  at: float

  @property
  def source(self) -> Source | None:
    """The one source that this is; None between two."""
    return {0: self.start, 1: self.end}.get(self.at, self.start if self.start == self.end else None)

  def __str__(self):
    """As `sampling.latents` has it."""
    return f'{self.start}:{self.end}:{self.at!r}' if self.source is None else str(self.source)


def sources(picks: Iterable[Pick]) -> tuple[Source, ...]:
  """All sources of which something is seen, each once."""
  ends = [(p.source,) if p.source is not None else (p.start, p.end) for p in picks]
  return tuple(dict.fromkeys(source for some in ends for source in some))


def pictures(picks: Iterable[Pick]) -> tuple[str, ...]:
  """The sources that are pictures."""
  return tuple(s for s in sources(picks) if isinstance(s, str) and s != OWN)


def parse(config: ConfigDict, system: System, strategy: str) -> tuple[tuple[Pick, ...], Ranks]:
  """What `sampling.latents` and `sampling.ranks` say, of every group of a strategy.

  Raises ConfigError.
  """
  c, k = config.sampling, system.strategies[strategy].num_groups
  with blaming('sampling.latents', repr(c.latents)):
    picks = [_pick(text.strip()) for text in (c.latents or OWN).split(',')]
    if len(picks) not in (1, k):
      raise ValueError(f'{len(picks)} of them; must be 1, or one for each of the {k} groups')
  with blaming('sampling.ranks', repr(c.ranks)):
    ranks = dict(_rank(text.strip()) for text in c.ranks.split(',')) if c.ranks else {}
    check_ranks(system, ranks, config.data.shape[-1])
  return tuple(picks * (k // len(picks))), ranks


def check_ranks(system: System, ranks: Ranks, channels: int):
  """Raises ValueError for coefficients that a model does not have."""
  basis = system.process.basis
  if ranks and basis.is_pixel:
    raise ValueError('this model has no frequency basis')
  for rank, channel in ranks:
    if not rank < basis.ranks.size:
      raise ValueError(f'{rank}: there are 0 to {basis.ranks.size - 1}')
    if not channel < channels:
      raise ValueError(f'{rank}.{channel}: the channels are 0 to {channels - 1}')


def _pick(text):
  start, end, at = parts if len(parts := text.rsplit(':', 2)) == 3 else (text, text, '0')
  number = float(at) if re.fullmatch(NUMBER, at, re.ASCII) else math.nan
  if not (0 <= number <= 1 and start and end):
    raise ValueError(
      f'{text!r} must be a seed, {OWN} for the own of each image, a picture, or FROM:TO:FRACTION'
    )
  return Pick(_source(start), _source(end), number)


def _source(text):
  if not re.fullmatch(r'\d+', text, re.ASCII):
    return text
  if not (len(text) < 12 and int(text) < 2**32):
    raise ValueError(f'{text[:20]} is no seed: 0 to 2**32 - 1')
  return int(text)


def _rank(text):
  match = re.fullmatch(rf'(\d{{1,9}})(?:\.(\d{{1,9}}))?=({NUMBER})', text, re.ASCII)
  if not (match and math.isfinite(value := float(match[3]))):
    raise ValueError(f'{text!r} must be RANK=VALUE or RANK.CHANNEL=VALUE, such as 12=-2.5')
  return (int(match[1]), int(match[2] or 0)), value


class Composer:
  """Puts latents together, one at a time, compiled once."""

  def __init__(self, system: System):
    basis = self._basis = system.process.basis
    self.masks = {name: tuple(editing.masks(system, name).values()) for name in system.strategies}
    self._swap = jax.jit(lambda z, other, mask: latents.swap(basis, z, other, mask)[0])
    self._between = jax.jit(
      lambda z, other, weight, mask: latents.interpolate(basis, z, other, weight, mask)
    )

  def __call__(
    self,
    strategy: str,
    picks: Iterable[Pick],
    ranks: Ranks,
    latent: Callable[[Source], Latent],
  ) -> Latent:
    """The latent of picks, one for each group of the strategy; latent: that of a source."""
    picks = tuple(picks)
    found = {source: latent(source) for source in sources(picks)}
    # A latent that is all of one seed is that seed's, bit for bit.
    base = picks[0].start if picks[0].source is None else picks[0].source
    z = found[base]
    for pick, mask in zip(picks, self.masks[strategy], strict=True):
      begin = pick.start if pick.source is None else pick.source
      if begin != base:
        z = jax.tree.map(lambda a, b, m=mask: self._swap(a, b, m), z, found[begin])
      if pick.source is None:
        weight = np.float32(pick.at)
        z = jax.tree.map(
          lambda a, b, m=mask, w=weight: self._between(a, b, w, m), z, found[pick.end]
        )
    for (rank, channel), value in ranks.items():
      at = jnp.asarray([value], jnp.float32)
      z = jax.tree.map(
        lambda a, r=rank, c=channel, v=at: latents.traverse(self._basis, a, r, c, v)[0], z
      )
    return jax.tree.map(np.asarray, z)


class Recipe(NamedTuple):
  """The latents that `config.sampling` asks for, of the images of seeds.

  given: the pictures among them by file, in the model's units. reversible: pictures are encoded as
  the pair of a reversible solver.
  """

  strategy: str
  picks: tuple[Pick, ...]
  ranks: Ranks
  given: Mapping[str, Float[np.ndarray, 'h w c']]
  reversible: bool

  def latents(
    self, system: System, generator: Generator, params: dict, table: Rows
  ) -> Callable[[Integer[np.ndarray, ' n'], Integer[np.ndarray, ' n']], Latent]:
    """From seeds and labels to latents. Pictures are encoded along the table under each label."""
    composer, encoded = Composer(system), {}

    def of_picture(file, label):
      if (file, label) not in encoded:
        x = self.given[file][None]
        encoded[file, label] = generator.encode(params, table, x, 1, label=label)
      return encoded[file, label]

    def one(seed, label):
      def latent(source):
        if source in self.given:
          z = of_picture(source, label)
        else:
          z = generator.latents(np.array([seed if source == OWN else source]))
        return paired(z, self.reversible and bool(self.given))

      return composer(self.strategy, self.picks, self.ranks, latent)

    def several(seeds, labels):
      return stacked(one(int(seed), int(label)) for seed, label in zip(seeds, labels, strict=True))

    return several


def paired(z: Latent, reversible: bool) -> Latent:
  """A latent as the pair of a reversible solver, or as its first member alone."""
  if reversible:
    return z if isinstance(z, ReversiblePair) else ReversiblePair(z, z)
  return z.x if isinstance(z, ReversiblePair) else z


def stacked(found: Iterable[Float[np.ndarray, '_ *grid c'] | ReversiblePair]) -> Latent:
  """Latents, one after another."""
  return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def recipe(
  config: ConfigDict,
  system: System,
  strategy: str,
  read: Callable[[tuple[str, ...]], Iterable[Float[np.ndarray, 'h w c']]],
  complete: bool = False,
) -> Recipe | None:
  """What `config.sampling` says of latents; None if all are of the images' own seeds.

  read: pictures of files. complete: known groups replace a part of them, so pairs are of no use.
  Raises ConfigError.
  """
  picks, ranks = parse(config, system, strategy)
  if sources(picks) == (OWN,) and not ranks:
    return None
  files = pictures(picks)
  given = dict(zip(files, read(files), strict=True)) if files else {}
  return Recipe(strategy, picks, ranks, given, build.solver(config).reversible and not complete)
