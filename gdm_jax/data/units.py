"""Pixels of 0..255 and the model's units, [-1, 1]."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

LEVEL = 2 / 255
"""The distance between neighbouring values of 0..255, in the model's units."""


def from_uint8(
  x: Shaped[Array | np.ndarray, '*shape'],
) -> Float[Array, '*shape'] | Float[np.ndarray, '*shape']:
  """uint8 of 0..255 as float32 in [-1, 1]; floats unchanged."""
  return x.astype(np.float32) / 127.5 - 1 if x.dtype == np.uint8 else x


def to_uint8(
  x: Shaped[Array | np.ndarray, '*shape'],
) -> UInt8[Array, '*shape'] | UInt8[np.ndarray, '*shape']:
  """Floats in [-1, 1] as 0..255, rounded, values outside clipped; uint8 unchanged.

  jax and numpy arrays give the same bytes.
  """
  xp = jnp if isinstance(x, jax.Array) else np
  return x if x.dtype == np.uint8 else xp.clip(xp.round((x + 1) * 127.5), 0, 255).astype(np.uint8)
