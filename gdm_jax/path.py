"""Paths: how signal and noise mix at a signal level alpha, x_t = a x + b z.

Every path is the linear one in disguise: with s = a + b and tau = a / s, the point y = x_t / s
moves along dy = u dtau, where u = x - z. So a path needs only a and b to be integrated, and a
solver has its full order along rows that are even in tau, which for the linear path is alpha.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Float

from gdm_jax.typing import AnyArray

Levels = Float[AnyArray, '...']


@dataclasses.dataclass(frozen=True)
class Path:
  """A static description of x_t = a(alpha) x + b(alpha) z, elementwise in the basis.

  signal, noise: a and b. straight: whether a + b = 1 everywhere.
  level: the alpha at a given tau. On any path, `level` of a table even in alpha is even in tau.
  velocity: (a' b - a b') / (a + b), the size of d x_t / d alpha per unit of error in u.
  """

  name: str
  signal: Callable[[Levels], Levels]
  noise: Callable[[Levels], Levels]
  velocity: Callable[[Levels], Levels]
  level: Callable[[Levels], Levels]
  straight: bool

  def tau(self, alpha: Levels) -> Levels:
    """a / (a + b): how far the linear path would be."""
    a, b = self.signal(alpha), self.noise(alpha)
    return alpha if self.straight else a / (a + b)


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
  level=lambda tau: tau,
  straight=True,
)
"""x_t = alpha x + (1 - alpha) z (Eq. 2, 6)."""

variance_preserving = Path(
  name='variance_preserving',
  signal=lambda alpha: alpha,
  noise=_sphere_noise,
  velocity=_sphere_velocity,
  level=lambda tau: tau / jnp.hypot(tau, 1 - tau),
  straight=False,
)
"""x_t = alpha x + sqrt(1 - alpha^2) z (Eq. 1)."""

PATHS = {path.name: path for path in (linear, variance_preserving)}
