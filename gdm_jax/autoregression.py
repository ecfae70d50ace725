"""Autoregression: k groups, one step each (Proposition 3.1, Appendix C.1).

The network, asked at the beginning of a group's interval, gives z + u = x_theta(x_>l), the mean of
a Gaussian of the group given those generated before it. With a deviation sigma for each group this
is a model with a likelihood of its own, which needs no ODE.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from gdm_jax.process import Data, Levels, Process
from gdm_jax.solvers import Predict
from gdm_jax.typing import AnyArray

Squares = Float[AnyArray, 'batch k']


def squared_errors(
  predict: Predict, process: Process, table: Float[AnyArray, 'rows k'], x: Data, z: Data
) -> Squares:
  """|| x_l - x_theta(x_>l) ||^2 of every group, summed over its elements (Eq. 26).

  table: of one step a group. z: the noise in groups that are not generated yet, on which an optimal
  prediction does not depend.
  """

  def one(total, rows):
    level, next_level = rows
    alpha = jnp.broadcast_to(level, total.shape)
    residual = x - z - predict(process.diffuse(x, z, alpha), alpha)
    of_groups = process.sum_by_group(process.basis.analyze(residual) ** 2)
    return total + jnp.where(level != next_level, of_groups, 0), None

  start = jnp.zeros((len(x), process.grouping.num_groups), x.dtype)
  return jax.lax.scan(one, start, (table[:-1], table[1:]))[0]


def squared_errors_at_once(
  conditionals: Callable[[Data, Data, Levels], Data], process: Process, x: Data, z: Data
) -> Squares:
  """As `squared_errors`, in one pass: conditionals(x, x_t, alpha) predicts each group given those
  of x that are generated before it."""
  noise = jnp.zeros((len(x), process.grouping.num_groups), x.dtype)
  residual = x - z - conditionals(x, z, noise)
  return process.sum_by_group(process.basis.analyze(residual) ** 2)


def deviations(squares: Squares, sizes: Int[np.ndarray, ' k']) -> Float[AnyArray, ' k']:
  """The most likely sigma of every group of this many elements, from errors on training data."""
  return jnp.sqrt(squares.mean(0) / sizes)


def log_likelihood(
  squares: Squares, sizes: Int[np.ndarray, ' k'], sigma: Float[AnyArray, ' k']
) -> Float[AnyArray, 'batch k']:
  """log p(x_l | x_>l) = log N(x_l; x_theta(x_>l), sigma_l^2 I) of every group, in nats.

  Eq. 18; with one sigma for all, maximising it is minimising Eq. 19.
  """
  return -squares / (2 * sigma**2) - sizes * jnp.log(sigma * math.sqrt(2 * math.pi))
