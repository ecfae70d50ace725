"""Attention to several sets of keys, and rotary positions."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float

from gdm_jax.models.layers import at_least_float32
from gdm_jax.typing import AnyArray

Heads = Float[AnyArray, 'b heads m features']
Keys = Float[AnyArray, 'b heads _ features']


def attend(
  query: Heads, known: Sequence[tuple[Keys, Keys]], mask: Bool[AnyArray, '#b m keys']
) -> Heads:
  """Attention to several sets of keys and values; mask: which of all keys each query sees.

  The sets are joined only after they met the queries, so that a cache is not copied.
  """
  scale = query.shape[-1] ** -0.5
  logits = [jnp.einsum('bhnd,bhmd->bhnm', query * scale, keys) for keys, _ in known]
  logits = jnp.concatenate(logits, -1).astype(at_least_float32(query.dtype))
  logits = jnp.where(mask[:, None], logits, -jnp.inf)
  weights = nn.softmax(logits).astype(query.dtype)
  ends = np.cumsum([keys.shape[2] for keys, _ in known])[:-1]
  parts = jnp.split(weights, ends, axis=-1)
  return sum(
    jnp.einsum('bhnm,bhmd->bhnd', part, values)
    for part, (_, values) in zip(parts, known, strict=True)
  )


def rotate(x: Heads, angles: Float[AnyArray, 'm angles']) -> Heads:
  """Pairs of features, half of them apart, turned by their angles."""
  a, b = jnp.split(x, 2, axis=-1)
  cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
  return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)
