"""Paths: how signal and noise mix at a signal level alpha, x_t = a x + b z.

Every path is the linear one in disguise: with s = a + b and tau = a / s, the point y = x_t / s
moves along dy = u dtau, where u = x - z. So a path needs only a and b to be integrated. Note that
rows even in alpha are even in tau for the linear path alone: on the variance preserving one a
solver shows its full order in tau, and less of it in alpha near 1.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

Levels = Float[Array, '...']


@dataclasses.dataclass(frozen=True)
class Path:
  """A static description of x_t = a(alpha) x + b(alpha) z, elementwise in the basis.

  signal, noise: a and b. straight: whether a + b = 1 everywhere.
  velocity: (a' b - a b') / (a + b), the size of d x_t / d alpha per unit of error in u.
  """

  name: str
  signal: Callable[[Levels], Levels]
  noise: Callable[[Levels], Levels]
  velocity: Callable[[Levels], Levels]
  straight: bool


def _sphere_noise(alpha):
  return jnp.sqrt((1 - alpha) * (1 + alpha))  # 1 - alpha**2 cancels near 1


def _sphere_velocity(alpha):
  b = _sphere_noise(alpha)
  return 1 / (b * (alpha + b))


linear = Path(
  name='linear',
  signal=lambda alpha: alpha,
  noise=lambda alpha: 1 - alpha,
  velocity=jnp.ones_like,
  straight=True,
)
"""x_t = alpha x + (1 - alpha) z (Eq. 2, 6)."""

variance_preserving = Path(
  name='variance_preserving',
  signal=lambda alpha: alpha,
  noise=_sphere_noise,
  velocity=_sphere_velocity,
  straight=False,
)
"""x_t = alpha x + sqrt(1 - alpha^2) z (Eq. 1)."""

PATHS = {path.name: path for path in (linear, variance_preserving)}
