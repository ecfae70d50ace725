"""Layers that the networks share: EDM's initialisation, embedding of the noise level, dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Float

from gdm_jax.typing import AnyArray, Size


def dense(features: int, dtype: DTypeLike, gain: float = 1.0, **options) -> nn.Dense:
  """Linear layer over the last axis, also a 1x1 convolution, with EDM's initialisation."""
  return nn.Dense(features, dtype=dtype, kernel_init=xavier(gain), dot_general=_multiply, **options)


def _multiply(x, kernel, _, **options):
  """`jax.lax.dot_general` of the last axis of x, as a product of two matrices.

  With more axes XLA on a CPU transposes an operand of the kernel's gradient and recomputes its
  whole chain of operations: 12% of a training step of the full-size network.
  """
  rows = x.reshape(-1, x.shape[-1])
  product = jax.lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), **options)
  return product.reshape(*x.shape[:-1], kernel.shape[-1])


def xavier(gain: float) -> nn.initializers.Initializer:
  """EDM's uniform initialisation (Glorot and Bengio 2010), scaled by `gain`."""
  return nn.initializers.variance_scaling(gain**2, 'fan_avg', 'uniform')


def positional_embedding(
  position: Float[AnyArray, ' b'], channels: int
) -> Float[AnyArray, 'b channels']:
  """Sines, then cosines, of angular frequencies from 1 to 1/10000, both included."""
  half = channels // 2
  frequencies = 1e-4 ** (np.arange(half) / (half - 1))
  angles = position[:, None] * jnp.asarray(frequencies, position.dtype)
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def label_or_zeros(
  name: str, label: Float[AnyArray, 'b width'] | None, batch: Size, width: int
) -> Float[AnyArray, 'b width']:
  """The label after a check of its shape; zeros if it is None."""
  if label is None:
    return jnp.zeros((batch, width))
  if label.shape != (batch, width):
    raise ValueError(f'{name} has shape {label.shape}; this network takes {(batch, width)}')
  return label


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
  """The type for sums, angles and outputs of a network that computes in `dtype`."""
  return jnp.promote_types(dtype, jnp.float32)


def compute_dtype(dtype: DTypeLike, x: Float[AnyArray, '...']) -> jnp.dtype:
  """`dtype`, but float64 if it is the default float32 and the input is float64."""
  raised = jnp.dtype(dtype) == jnp.float32 and x.dtype == jnp.float64
  return jnp.dtype(jnp.float64 if raised else dtype)
