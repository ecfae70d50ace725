"""A U-Net that sees the known groups once, and a light one that denoises a group at every step.

The first, the context network, is shown the groups that are known and which they are, nothing else,
and leaves features at every position. The second, the denoiser, works on one group as on an image
of its own: its noisy values, its level and the features there. So a step costs what the denoiser
costs on a group's cell, k groups cost k evaluations of the context network and, if cells tile the
image, as much of the denoiser as one group does, and groups not yet started influence nothing
(Proposition 3.3 of GDM, for any parameters). Masked autoregression with a diffusion head is alike
(Li et al. 2024, "Autoregressive image generation without vector quantization"); there the head
draws each token by itself.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from gdm_jax.models.ddpmpp import DDPMPP
from gdm_jax.models.layers import at_least_float32, compute_dtype
from gdm_jax.models.tokens import Elements, Tokens, cells
from gdm_jax.typing import AnyArray

Cache = Float[AnyArray, 'b 1 n slots']
"""The clean values of groups."""

Features = Float[AnyArray, 'b positions features']


class ContextUNet(nn.Module):
  """DDPM++ over the known groups, and a light DDPM++ over each of the others (`cells`).

  The output is the linear estimate of u = x - z for elements of the expected scale, plus the
  denoiser's estimate of the rest, scaled to unit variance, as EDM's preconditioning is. At level 0
  a group's own noise, of which its data are independent, is hidden from the denoiser too.

  Attributes:
    out_channels: channels of the data.
    elements: groups and scales of the data's elements.
    mix: of signal and noise at a signal level, level -> (a, b).
    channels: of the context network, as of `DDPMPP`; likewise multipliers, blocks and attention.
    features: what it leaves at every position.
    denoiser_channels: of the denoiser, as of `DDPMPP`; likewise its multipliers and blocks. It has
      attention at its bottleneck.
    dropout: of both.
    num_classes: width of `class_label`, 0 for none.
    augment_dim: width of `augment_label`, 0 for none.
    remat, dtype, convolution: as in `DDPMPP`.
  """

  out_channels: int
  elements: Elements
  mix: Callable
  channels: int = 128
  multipliers: tuple[int, ...] = (2, 2, 2)
  blocks: int = 4
  attention: tuple[int, ...] = (16,)
  features: int = 64
  denoiser_channels: int = 64
  denoiser_multipliers: tuple[int, ...] = (1, 2)
  denoiser_blocks: int = 1
  dropout: float = 0.13
  num_classes: int = 0
  augment_dim: int = 0
  remat: str = 'none'
  dtype: DTypeLike = jnp.float32
  convolution: Callable = jax.lax.conv_general_dilated

  @property
  def tokens(self) -> Tokens:
    """The groups, each a token."""
    return self._cells[0]

  @property
  def _cells(self):
    return cells(self.elements, 2 ** (len(self.denoiser_multipliers) - 1))

  def setup(self):
    def unet(out_channels, channels, multipliers, blocks, attention):
      return DDPMPP(
        *(out_channels, channels, multipliers, blocks, attention, self.dropout),
        *(self.num_classes, self.augment_dim, self.dtype, self.remat, self.convolution),
      )

    self.context_network = unet(
      *(self.features, self.channels, self.multipliers, self.blocks, self.attention)
    )
    self.denoiser = unet(
      *(self.out_channels, self.denoiser_channels, self.denoiser_multipliers),
      *(self.denoiser_blocks, ()),
    )

  def __call__(
    self,
    x: Float[AnyArray, 'b *grid c'],
    noise_label: Float[AnyArray, ' b'],
    class_label: Float[AnyArray, 'b classes'] | None = None,
    augment_label: Float[AnyArray, 'b augment'] | None = None,
    train: bool = False,
  ) -> Float[AnyArray, 'b *grid out']:
    """The prediction at any signal levels, which are the last channels of x.

    Groups at level 1 are known, and returned as they are, which is the best prediction of them.
    Every other is predicted from these and from itself. The denoiser runs on all k groups, so a
    batch is k batches to it. noise_label: without effect.
    """
    x, levels = x[..., : self.out_channels], x[..., self.out_channels :]
    levels = jnp.broadcast_to(levels, x.shape)
    slots, ids = self.tokens.slots, np.arange(len(self.tokens))
    level = levels.reshape(len(x), -1)[:, slots[ids, self.tokens.filled.argmax(1)]]
    features = self._look(x, levels == 1, class_label, augment_label, train)
    labels = class_label, augment_label
    u = self._noisy(features, self._gather(x, ids), ids, level, *labels, train)
    u = u.reshape(len(x), -1)[:, self.tokens.places].reshape(x.shape)
    return jnp.where(levels == 1, x.astype(u.dtype), u)

  def encode(self, x: Float[AnyArray, 'b *grid c'], ids: Int[AnyArray, ' n']) -> Cache:
    """What is kept of the groups `ids` when they are known: their values."""
    return self._gather(x, ids)[:, None]

  def context(
    self,
    cache: Cache,
    known: Int[AnyArray, ' n'],
    class_label: Float[AnyArray, 'b classes'] | None = None,
  ) -> Features:
    """What the context network leaves of the known groups.

    known: which group each of the cache is; len(tokens) if it is none.
    """
    slots = self._slots(known)
    flat = jnp.zeros((len(cache), self.tokens.size), cache.dtype)
    is_known = jnp.zeros(self.tokens.size, bool).at[slots].set(True, mode='drop')
    shape = self.elements.labels.shape
    x = flat.at[:, slots].set(cache[:, 0], mode='drop').reshape(-1, *shape)
    return self._look(x, is_known.reshape(shape), class_label)

  def denoise(
    self,
    context: Features,
    x: Float[AnyArray, 'b *grid c'],
    ids: Int[AnyArray, ' n'],
    level: Float[AnyArray, ' b'],
    class_label: Float[AnyArray, 'b classes'] | None = None,
  ) -> Float[AnyArray, 'b *grid c']:
    """The prediction of the groups `ids`, all at one level, as `__call__` makes it; 0 elsewhere."""
    noisy = self._gather(x, ids)
    u = self._noisy(context, noisy, ids, level[:, None], class_label)
    u = jnp.where(level[:, None, None] == 1, noisy.astype(u.dtype), u)
    flat = jnp.zeros((len(x), self.tokens.size), u.dtype)
    return flat.at[:, self._slots(ids)].set(u, mode='drop').reshape(x.shape)

  def _look(self, x, known, class_label, augment_label=None, train=False):
    """The features, from the values of x that are known."""
    seen = jnp.where(known, x / self.elements.scale.astype(x.dtype), 0)
    known = jnp.broadcast_to(known, x.shape).astype(seen.dtype)
    noise_label = 1000 * (1 - known.mean(tuple(range(1, x.ndim))))
    shown = jnp.concatenate([seen, known], -1)
    found = self.context_network(shown, noise_label, class_label, augment_label, train)
    return found.reshape(len(x), -1, self.features)

  def _noisy(self, features, x, ids, level, class_label=None, augment_label=None, train=False):
    """u of groups [b, n, slots] at levels [b, n], or [b, 1] for all."""
    batch, n, _ = x.shape
    wide = at_least_float32(compute_dtype(self.dtype, x))
    a, b = (v[..., None].astype(wide) for v in self.mix(level))
    scale = jnp.take(jnp.asarray(self.elements.scale.ravel()), self._slots(ids), mode='clip')
    deviation = jnp.sqrt((a * scale) ** 2 + b**2)

    # Groups are examples to the denoiser.
    at = self._slots(ids).reshape(n, -1, self.out_channels).min(-1) // self.out_channels
    here = jnp.take(features, at, axis=1, mode='fill', fill_value=0)
    own = jnp.where(level[..., None] > 0, x / deviation, 0).reshape(*here.shape[:-1], -1)
    shown = jnp.concatenate([own.astype(here.dtype), here], -1)
    shown = shown.reshape(batch * n, *self._cells[1], shown.shape[-1])
    noise_label = jnp.broadcast_to(1000 * (1 - level), (batch, n)).ravel()
    labels = (
      label if label is None else jnp.repeat(label, n, axis=0)
      for label in (class_label, augment_label)
    )
    rest = self.denoiser(shown, noise_label, *labels, train).reshape(x.shape).astype(wide)

    linear = (a * scale**2 - b) / deviation**2 * x
    return linear + scale * (a + b) / deviation * rest

  def _gather(self, x, ids):
    return jnp.take(x.reshape(len(x), -1), self._slots(ids), 1, mode='fill', fill_value=0)

  def _slots(self, ids):
    return jnp.take(self.tokens.slots, ids, 0, mode='fill', fill_value=self.tokens.size)
