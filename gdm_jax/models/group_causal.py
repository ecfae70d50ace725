"""A transformer over tokens that belong to groups; what is generated is context, computed once.

Two copies of an example pass through the same blocks. A clean token sees the clean tokens of its
own group. A noisy token sees the clean tokens of the groups that are known, and the noisy tokens of
the groups under way. So the keys and values of a clean group depend on that group alone: they serve
every later group, whatever the order, and groups not yet started influence nothing
(Proposition 3.3 of GDM, for any parameters).
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from gdm_jax.models.attention import Heads, attend, rotate
from gdm_jax.models.layers import (
  at_least_float32,
  compute_dtype,
  dense,
  label_or_zeros,
  positional_embedding,
)
from gdm_jax.models.tokens import Elements, Tokens, tokens
from gdm_jax.typing import AnyArray

EXPANSION = 2  # of a block's gated layer
MODULATIONS = 6  # of a block: shift, scale and gate of its two branches
ROTARY_BASE = 100  # tokens in the longest rotary period, about


Cache = tuple[tuple[Heads, Heads], ...]
"""Keys and values of clean tokens, block by block."""

Context = tuple[Cache, Bool[AnyArray, 'b m']]
"""A cache, and which of its tokens are seen."""


class Block(nn.Module):
  """Attention and a gated layer (SwiGLU), each with its residual; see `GroupCausal`."""

  width: int
  heads: int
  dropout: float
  dtype: DTypeLike

  def setup(self):
    def norm():
      return nn.RMSNorm(dtype=self.dtype)

    self.norm1, self.norm2, self.query_norm, self.key_norm = norm(), norm(), norm(), norm()
    self.qkv = dense(3 * self.width, self.dtype, use_bias=False)
    self.attention_output = dense(self.width, self.dtype)
    self.gated = dense(2 * EXPANSION * self.width, self.dtype, use_bias=False)
    self.output = dense(self.width, self.dtype)
    self.drop = nn.Dropout(self.dropout)
    self.modulation = self.param(
      'modulation', nn.initializers.zeros, (MODULATIONS, self.width), jnp.float32
    )

  def project(self, h, angles, modulation):
    """Queries, keys and values [b, heads, n, features]."""
    shift, scale, _ = self._modulation(modulation)[:3]
    x = self.qkv(self.norm1(h) * (1 + scale) + shift)
    x = x.reshape(*h.shape[:2], 3, self.heads, self.width // self.heads).transpose(2, 0, 3, 1, 4)
    return rotate(self.query_norm(x[0]), angles), rotate(self.key_norm(x[1]), angles), x[2]

  def finish(self, h, attended, modulation, train):
    """What follows attention."""
    _, _, gate1, shift, scale, gate2 = self._modulation(modulation)
    attended = attended.transpose(0, 2, 1, 3).reshape(h.shape)
    h += gate1 * self.drop(self.attention_output(attended), deterministic=not train)
    a, b = jnp.split(self.gated(self.norm2(h) * (1 + scale) + shift), 2, axis=-1)
    return h + gate2 * self.drop(self.output(nn.silu(a) * b), deterministic=not train)

  def _modulation(self, modulation):
    """Shift, scale, gate, shift, scale, gate; those of clean tokens change nothing."""
    if modulation is None:
      return 0.0, 0.0, 1.0, 0.0, 0.0, 1.0
    parts = modulation + self.modulation.astype(self.dtype).ravel()
    return jnp.split(parts, MODULATIONS, axis=-1)


class GroupCausal(nn.Module):
  """Transformer for groupwise diffusion: one token is a patch of one group (`tokens`).

  Blocks have rotary positions in as many axes as the grid has, normalised queries and keys, and
  from the second half on a long skip from the first (Bao et al. 2023). The level and the class
  enter noisy tokens alone, by shifts, scales and gates that are zero at first (Peebles and Xie
  2023), shared by the blocks but for an offset (Chen et al. 2024).

  The output is the linear estimate of u = x - z for elements of the expected scale, plus the
  transformer's estimate of the rest, scaled to unit variance, as EDM's preconditioning is.

  Attributes:
    out_channels: channels of the data.
    elements: groups, ranks and scales of the data's elements.
    mix: of signal and noise at a signal level, level -> (a, b).
    patch: side of a token, positions.
    width: features of a token.
    depth: blocks.
    heads: of attention; they share the width.
    dropout: probability of zeroing an output of a branch when training, from the rng 'dropout'.
    num_classes: width of `class_label`, 0 for none.
    augment_dim: width of `augment_label`, 0 for none.
    dtype: what activations are computed in, as in `DDPMPP`; parameters are float32.
  """

  out_channels: int
  elements: Elements
  mix: Callable
  patch: int = 2
  width: int = 128
  depth: int = 6
  heads: int = 2
  dropout: float = 0.0
  num_classes: int = 0
  augment_dim: int = 0
  dtype: DTypeLike = jnp.float32

  @property
  def tokens(self) -> Tokens:
    """The tokens of an example."""
    return tokens(self.elements, self.patch)

  def setup(self):
    if self.width % (2 * self.heads):
      raise ValueError(f'heads = {self.heads}: width = {self.width} must be a multiple of twice it')
    dtype, slots = self.dtype, self.tokens.slots.shape[1]
    self.embedding = dense(self.width, dtype)
    self.position = self.param(
      'position', nn.initializers.normal(0.02), (len(self.tokens), self.width), jnp.float32
    )
    self.level1, self.level2 = dense(self.width, dtype), dense(self.width, dtype)
    if self.num_classes + self.augment_dim:
      self.labels = dense(self.width, dtype, use_bias=False)
    self.modulation = dense((MODULATIONS + 2) * self.width, dtype, gain=0)
    self.blocks = [
      Block(self.width, self.heads, self.dropout, dtype, name=f'block{i}')
      for i in range(self.depth)
    ]
    self.skips = [
      dense(self.width, dtype, name=f'skip{i}') for i in range((self.depth + 1) // 2, self.depth)
    ]
    self.norm = nn.RMSNorm(dtype=dtype)
    self.output = dense(slots, dtype, gain=0)

  def __call__(
    self,
    x: Float[AnyArray, 'b *grid c'],
    noise_label: Float[AnyArray, ' b'],
    class_label: Float[AnyArray, 'b classes'] | None = None,
    augment_label: Float[AnyArray, 'b augment'] | None = None,
    train: bool = False,
  ) -> Float[AnyArray, 'b *grid out']:
    """The prediction at any signal levels, which are the last channels of x.

    Who sees whom follows from the levels: groups at level 1 are known, those between 0 and 1 are
    under way and see one another, and every group sees itself. Known groups are returned as they
    are, which is the best prediction of them. noise_label: without effect.
    """
    x, levels = x[..., : self.out_channels], x[..., self.out_channels :]
    levels = jnp.broadcast_to(levels, x.shape).reshape(x.shape[0], -1)
    known = levels == 1
    first = self.tokens.slots.ravel()[self._first_place()]
    level = levels[:, first]
    eye = np.eye(level.shape[1], dtype=bool)
    under_way = (level > 0) & (level < 1)
    sees_known = (level == 1)[:, None, :] & ~eye
    sees_noisy = (under_way[:, :, None] & under_way[:, None, :]) | eye
    u = self.conditionals(x, x, level, sees_known, sees_noisy, class_label, augment_label, train)
    return jnp.where(known.reshape(x.shape), x.astype(u.dtype), u)

  def conditionals(
    self,
    clean: Float[AnyArray, 'b *grid c'],
    noisy: Float[AnyArray, 'b *grid c'],
    level: Float[AnyArray, 'b k'],
    sees_clean: Bool[AnyArray, 'b k k'],
    sees_noisy: Bool[AnyArray, 'b k k'],
    class_label: Float[AnyArray, 'b classes'] | None = None,
    augment_label: Float[AnyArray, 'b augment'] | None = None,
    train: bool = False,
  ) -> Float[AnyArray, 'b *grid c']:
    """The predictions of all groups in one pass, each at its own level and with its own context.

    sees_clean, sees_noisy: [i, g, h], whether noisy group g sees the clean or noisy group h.
    """
    ids, groups = np.arange(len(self.tokens)), self.tokens.groups
    several = level.shape[1] > 1  # else there is no context
    cache = self.encode(clean, ids, train) if several else ()
    mask = jnp.concatenate([sees_clean, sees_noisy] if several else [sees_noisy], -1)[:, groups]
    mask = mask[:, :, np.concatenate([groups, groups + level.shape[1]]) if several else groups]
    u = self._noisy(
      *(cache, mask, self._gather(noisy, ids), ids, level),
      *(groups, class_label, augment_label, train),
    )
    return u.reshape(u.shape[0], -1)[:, self.tokens.places].reshape(noisy.shape)

  def encode(
    self, x: Float[AnyArray, 'b *grid c'], ids: Int[AnyArray, ' n'], train: bool = False
  ) -> Cache:
    """The cache of the tokens `ids` of clean data; ids of len(tokens) are padding."""
    groups = self._of_groups(ids)
    mask = (groups[:, None] == groups)[None]
    h = self._embed(self._gather(x, ids) / self._scale(ids), ids)
    angles, cache, skips = self._angles(ids), [], []
    for i, block in enumerate(self.blocks):
      h = self._skip(i, h, skips)
      query, key, value = block.project(h, angles, None)
      cache.append((key, value))
      if i + 1 < self.depth:
        h = block.finish(h, attend(query, [(key, value)], mask), None, train)
    return tuple(cache)

  def context(
    self,
    cache: Cache,
    known: Int[AnyArray, ' m'],
    class_label: Float[AnyArray, 'b classes'] | None = None,
  ) -> Context:
    """A cache, and which of its tokens are known; they do not depend on the label.

    known: which token each of the cache is; len(tokens) if it is not to be seen.
    """
    batch = len(cache[0][0])
    return cache, jnp.broadcast_to(known < len(self.tokens), (batch, len(known)))

  def denoise(
    self,
    context: Context,
    x: Float[AnyArray, 'b *grid c'],
    ids: Int[AnyArray, ' n'],
    level: Float[AnyArray, ' b'],
    class_label: Float[AnyArray, 'b classes'] | None = None,
    augment_label: Float[AnyArray, 'b augment'] | None = None,
  ) -> Float[AnyArray, 'b *grid c']:
    """The prediction of the tokens `ids`, all at one level, as `__call__` makes it; 0 elsewhere."""
    cache, seen = context
    groups = self._of_groups(ids)
    own = groups[:, None] == groups
    together = (groups < self.elements.num_groups) & ((level > 0) & (level < 1))[:, None, None]
    known = jnp.broadcast_to(seen[:, None], (x.shape[0], len(ids), seen.shape[1]))
    mask = jnp.concatenate([known, own | together], -1)
    noisy = self._gather(x, ids)
    u = self._noisy(
      *(cache, mask, noisy, ids, level[:, None]),
      *(jnp.zeros(1, int), class_label, augment_label, False),
    )
    u = jnp.where(level[:, None, None] == 1, noisy.astype(u.dtype), u)
    flat = jnp.zeros((x.shape[0], self.tokens.size), u.dtype)
    return flat.at[:, self._slots(ids)].set(u, mode='drop').reshape(x.shape)

  def _noisy(self, cache, mask, x, ids, level, level_of, class_label, augment_label, train):
    """u of noisy tokens [b, n, slots]; level[:, level_of] are their levels, or one for all."""
    dtype = compute_dtype(self.dtype, x)
    wide = at_least_float32(dtype)
    modulation = self._modulation(level, class_label, augment_label)[:, level_of]
    modulation, final = jnp.split(modulation, [MODULATIONS * self.width], axis=-1)
    a, b = (v[:, level_of, None].astype(wide) for v in self.mix(level))
    scale = self._scale(ids)
    deviation = jnp.sqrt((a * scale) ** 2 + b**2)

    h, angles, skips = self._embed(x / deviation, ids), self._angles(ids), []
    for i, block in enumerate(self.blocks):
      h = self._skip(i, h, skips)
      query, key, value = block.project(h, angles, modulation)
      attended = attend(query, [*cache[i : i + 1], (key, value)], mask)
      h = block.finish(h, attended, modulation, train)
    shift, gain = jnp.split(final, 2, axis=-1)
    rest = self.output(self.norm(h) * (1 + gain) + shift).astype(wide)
    linear = (a * scale**2 - b) / deviation**2 * x
    return linear + scale * (a + b) / deviation * rest

  def _modulation(self, level, class_label, augment_label):
    """Shifts, scales and gates [b, groups, features] of the levels [b, groups]."""
    batch = level.shape[0]
    h = positional_embedding(1000 * (1 - level.ravel()), self.width)
    h = self.level2(nn.silu(self.level1(h))).reshape(*level.shape, self.width)
    if self.num_classes + self.augment_dim:
      labels = [
        label_or_zeros('class_label', class_label, batch, self.num_classes),
        label_or_zeros('augment_label', augment_label, batch, self.augment_dim),
      ]
      h += self.labels(jnp.concatenate(labels, -1).astype(h.dtype))[:, None]
    return self.modulation(nn.silu(h))

  def _embed(self, x, ids):
    position = jnp.take(self.position, ids, axis=0, mode='clip')
    return self.embedding(x) + position.astype(self.dtype)

  def _skip(self, i, h, skips):
    """The input of block i, after the long skip that it may have."""
    if i < self.depth // 2:
      skips.append(h)
    elif i >= (self.depth + 1) // 2:
      dense = self.skips[i - (self.depth + 1) // 2]
      h = dense(jnp.concatenate([h, skips.pop()], -1))
    return h

  def _gather(self, x, ids):
    return jnp.take(x.reshape(x.shape[0], -1), self._slots(ids), 1, mode='fill', fill_value=0)

  def _slots(self, ids):
    return jnp.take(self.tokens.slots, ids, 0, mode='fill', fill_value=self.tokens.size)

  def _of_groups(self, ids):
    return jnp.take(self.tokens.groups, ids, mode='fill', fill_value=self.elements.num_groups)

  def _scale(self, ids):
    scale = jnp.asarray(self.elements.scale.ravel())
    return jnp.take(scale, self._slots(ids), mode='fill', fill_value=1)

  def _angles(self, ids):
    """Rotary angles [n, features / 2]: an even share of the frequencies for every axis."""
    centres = self.tokens.centres
    half, axes = self.width // self.heads // 2, centres.shape[1]
    share = -(-half // axes)
    frequencies = float(ROTARY_BASE) ** (-np.arange(share) / share)
    angles = (centres[:, :, None] * frequencies).reshape(len(centres), -1)[:, :half]
    return jnp.take(angles, ids, axis=0, mode='clip')

  def _first_place(self):
    """The slot, in all of them, of one element of every group."""
    filled = np.flatnonzero(self.tokens.filled)
    groups = self.tokens.groups[filled // self.tokens.slots.shape[1]]
    return filled[np.unique(groups, return_index=True)[1]]
