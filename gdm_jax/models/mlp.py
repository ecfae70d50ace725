"""A small multilayer perceptron for 2-D data, called as DDPM++ is."""

import math

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Float

from gdm_jax.models.layers import (
  at_least_float32,
  compute_dtype,
  dense,
  label_or_zeros,
  positional_embedding,
)
from gdm_jax.typing import AnyArray


class MLP(nn.Module):
  """Residual SiLU layers over the flattened example, its noise label and its other labels.

  Attributes:
    out_channels: channels of the output.
    width: features of every layer, and of the sinusoidal embedding of the noise label.
    depth: residual layers.
    num_classes: width of `class_label`, 0 for none.
    augment_dim: width of `augment_label`, 0 for none.
    dtype: what activations are computed in, as in `DDPMPP`; parameters are float32.
  """

  out_channels: int
  width: int = 128
  depth: int = 4
  num_classes: int = 0
  augment_dim: int = 0
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[AnyArray, 'b *grid c'],
    noise_label: Float[AnyArray, ' b'],
    class_label: Float[AnyArray, 'b classes'] | None = None,
    augment_label: Float[AnyArray, 'b augment'] | None = None,
    train: bool = False,
  ) -> Float[AnyArray, 'b *grid out']:
    """Maps examples to outputs on the same grid.

    Args:
      noise_label: position in the sinusoidal embedding, made for 0..1000.
      class_label: one-hot; None is all zeros.
      augment_label: None is all zeros.
      train: without effect, there is no dropout.

    Raises:
      ValueError: a label has another width than the network.
    """
    del train
    dtype = compute_dtype(self.dtype, x)
    wide = at_least_float32(dtype)
    batch, grid = x.shape[0], x.shape[1:-1]
    noise_label = jnp.broadcast_to(noise_label, (batch,)).astype(wide)
    inputs = [
      x.reshape(batch, -1),
      positional_embedding(noise_label, self.width),
      label_or_zeros('class_label', class_label, batch, self.num_classes),
      label_or_zeros('augment_label', augment_label, batch, self.augment_dim),
    ]
    h = dense(self.width, dtype, name='input')(jnp.concatenate(inputs, axis=-1))
    for i in range(self.depth):
      h += dense(self.width, dtype, name=f'layer{i}')(nn.silu(h))
    h = dense(math.prod(grid) * self.out_channels, dtype, name='output')(nn.silu(h))
    return h.reshape(batch, *grid, self.out_channels).astype(wide)
