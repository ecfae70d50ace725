"""The names of parameters in files, and the tree of a network from them.

DDPM++ has EDM's names and layouts, so that its files and EDM's are of one kind; other networks have
Flax's, joined by dots.
"""

from collections.abc import Mapping

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from gdm_jax.models.ddpmpp import params_from_reference, params_to_reference


def to_names(network: str, params: dict) -> dict[str, Array | np.ndarray]:
  """Parameters by name; network: as in `NETWORKS`."""
  if network == 'ddpmpp':
    return params_to_reference(params)
  return flatten_dict(params, sep='.')


def from_names(network: str, tensors: Mapping[str, Array | np.ndarray]) -> dict:
  """The inverse of `to_names`. Raises ValueError for a name that is no parameter of DDPM++."""
  if network == 'ddpmpp':
    return params_from_reference(tensors)
  return unflatten_dict(dict(tensors), sep='.')
