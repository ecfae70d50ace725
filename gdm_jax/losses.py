"""Training losses: weights on one residual, r = U^T (x - z - u) (Eq. 3, 7, 8, 12, 16).

U is orthogonal, so the unweighted loss is the same in pixels (Eq. 16) and coefficients (Eq. 12).
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Float

from gdm_jax.process import Data, Levels, Process
from gdm_jax.solvers import Predict
from gdm_jax.typing import AnyArray


def loss(
  predict: Predict,
  process: Process,
  x: Data,
  z: Data,
  alpha: Levels,
  rate: Levels,
  weighting: str = 'unweighted',
) -> Float[AnyArray, ' batch']:
  """Mean square error of the prediction u over each example's elements, weighted.

  alpha, rate: the signal levels and their rates per unit of time (`schedule.coefficients`,
  `schedule.rates`), [batch, k].
  weighting:
    'unweighted': || x - z - u ||^2 (Eq. 8, 16).
    'velocity': || A' (x - z - u) ||^2 (Eq. 7), with the path's factor if it is not linear;
      heavy-tailed for the variance preserving path, whose velocity is unbounded near alpha = 1.
    'active': || x - z - u ||^2 over the elements of the groups now diffusing, their mean.
    'denoising': || x - x^ ||^2, lambda(t) = 1 (Eq. 3), x^ being the data that u implies.

  Raises ValueError for an unknown weighting.
  """
  if weighting not in WEIGHTINGS:
    raise ValueError(f'weighting {weighting!r} is unknown; there are {", ".join(WEIGHTINGS)}')
  residual = x - z - predict(process.diffuse(x, z, alpha), alpha)
  axes = tuple(range(1, x.ndim))
  if weighting == 'unweighted':
    return jnp.mean(residual**2, axes)
  level, speed = process.coefficient_map(alpha), process.coefficient_map(rate)
  weight = WEIGHTINGS[weighting](process.path, level, speed)
  return jnp.mean(weight * process.basis.analyze(residual) ** 2, axes)


def _velocity(path, level, speed):
  # The factor of a curved path is infinite at alpha = 1: where nothing moves the weight is zero,
  # elsewhere the level stays the last float below.
  below = 1 - jnp.finfo(level.dtype).eps
  factor = path.velocity(jnp.where(speed != 0, jnp.minimum(level, below), 0))
  return (speed * factor) ** 2


def _active(path, level, speed):
  mask = (speed != 0).astype(level.dtype)
  count = jnp.sum(mask, tuple(range(1, mask.ndim)), keepdims=True)
  return mask * (mask[0].size / jnp.maximum(count, 1))  # 0 where a schedule leaves a gap


def _denoising(path, level, speed):
  a, b = path.signal(level), path.noise(level)
  return (b / (a + b)) ** 2


WEIGHTINGS: dict[str, Callable | None] = {
  'unweighted': None,
  'velocity': _velocity,
  'active': _active,
  'denoising': _denoising,
}
