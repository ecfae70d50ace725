"""What it costs to generate one group after a set of others: squared errors and likelihoods.

In all of them the groups of the set A are data, the groups that move (one of a strategy's) are at a
level between, and the others are noise. Sums of these costs along an order are what `ordering`
minimises. A group-causal network does not see the noise, so its costs are numbers of (A, j)
exactly; those of other networks are means over that noise.

One weighting of the squared error makes the sum over an order a likelihood. With y = x_t / (a + b)
and tau of `path`, x_t tells as much as sqrt(snr) x + noise with snr = (tau / (1 - tau))^2, and the
error of the denoised x is 1 - tau times that of u = x - z. The derivative of the mutual information
by the snr is half the squared error of the optimal x (Guo, Shamai and Verdu 2005, Theorem 1);
integrated over all snr, with that of standard normal data subtracted, it is the entropy (Kong,
Brekelmans and Ver Steeg 2023, "Information-theoretic diffusion"). In tau, for n elements:

  E[-log p(x_Sj | x_A)] = n/2 log(2 pi e)
    + int_0^1 tau / (1 - tau) (E || r_j ||^2 - n / (tau^2 + (1 - tau)^2)) dtau

with the residual r of Eq. 8 of the optimal prediction; n / (tau^2 + (1 - tau)^2) is that of
standard normal data. Any other prediction has a larger || r ||^2, so what `bound` integrates is an
upper bound (the weight is also that of Kingma et al. 2021, "Variational diffusion models", in
continuous time). By the chain rule its sum over the groups is, for the optimal prediction, the same
in every order.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from gdm_jax import likelihood, sampling
from gdm_jax.process import Data, Process
from gdm_jax.sampling import Seeds
from gdm_jax.solvers import Predict, Solver
from gdm_jax.typing import AnyArray, Scalar

Flags = Bool[AnyArray, ' k']
Comb = Float[np.ndarray, ' levels']
Squares = Float[AnyArray, 'levels batch']

STREAM = 2
"""Of an example's seed, the first stream of noise; likelihoods use those before."""

SHRINKING = 2
"""The power of `rows` for likelihoods. What varies by v is decided where 1 - tau is v^(1/2) or so:
of Gaussian data of v = 0.01 three even steps of RK4 are off by 0.07 nats, these by 0.01."""


def comb(count: int) -> tuple[Comb, Comb]:
  """Levels tau in (0, 1) and weights that integrate over them: Gauss and Legendre's."""
  nodes, weights = np.polynomial.legendre.leggauss(count)
  return (nodes + 1) / 2, weights / 2


def noise(seeds: Seeds, level: Int[AnyArray, ''] | int, shape: tuple[int, ...]) -> Data:
  """Noise [batch, *shape] from the examples' own seeds, another one for each level's number."""

  def draw(seed):
    key = jax.random.fold_in(jax.random.key(seed), STREAM + level)
    return jax.random.normal(key, shape)

  return jax.vmap(draw)(seeds)


def levels(process: Process, known: Flags, moving: Flags, tau: Scalar) -> Float[AnyArray, ' k']:
  """Signal levels: 1 of what is known, that of tau of what moves, 0 of the others."""
  return jnp.where(known, 1.0, jnp.where(moving, process.path.level(jnp.asarray(tau)), 0.0))


def squares(
  predict: Predict,
  process: Process,
  x: Data,
  seeds: Seeds,
  known: Flags,
  moving: Flags,
  taus: Float[AnyArray, ' levels'],
) -> tuple[Squares, Squares]:
  """|| r ||^2 and || z ||^2, summed over the elements that move, of every example at every level.

  r = x - z - u is the residual of Eq. 8. The noise depends on the example's seed and the number of
  the level alone, so that two costs differ by their prediction and not by their noise.
  """

  def at_level(arguments):
    number, tau = arguments
    z = noise(seeds, number, x.shape[1:]).astype(x.dtype)
    alpha = jnp.broadcast_to(levels(process, known, moving, tau), (len(x), known.shape[0]))
    alpha = alpha.astype(x.dtype)
    r = x - z - predict(process.diffuse(x, z, alpha), alpha)
    return tuple(_sum(process, process.basis.analyze(v) ** 2, moving) for v in (r, z))

  return jax.lax.map(at_level, (jnp.arange(len(taus)), jnp.asarray(taus, x.dtype)))


def loss(errors: Squares, weights: Comb) -> Float[AnyArray, ' batch']:
  """|| r ||^2 integrated over the group's interval: Eq. 8 on the group that is generated."""
  return jnp.tensordot(jnp.asarray(weights), errors, 1)


def bound(
  errors: Squares, noises: Squares, size: Scalar, taus: Comb, weights: Comb
) -> Float[AnyArray, ' batch']:
  """An upper bound on the expected -log p(x_Sj | x_A), in nats (see above).

  errors, noises: of `squares`; size: the elements that move. For the n of standard normal data the
  || z ||^2 of the very noise is taken, which has that mean and most of the luck of || r ||^2.
  """
  reference = noises / (taus**2 + (1 - taus) ** 2)[:, None]
  gaps = jnp.tensordot(jnp.asarray(weights * taus / (1 - taus)), errors - reference, 1)
  return size / 2 * math.log(2 * math.pi * math.e) + gaps


def nll(
  predict: Predict,
  process: Process,
  x: Data,
  z: Data,
  known: Flags,
  moving: Flags,
  steps: int,
  probes: likelihood.Probes | None = None,
  solver: str | Solver = 'rk4',
) -> Float[AnyArray, ' batch']:
  """-log p(x_Sj | x_A) by the ODE, in nats, in steps that shrink towards data (`likelihood`).

  z: the noise in the groups neither known nor moving. Raises ValueError as `likelihood.get_solver`.
  """
  start = process.replace(z, x, known | moving)
  table = rows(process, known, moving, steps, SHRINKING).astype(x.dtype)
  nats = likelihood.log_likelihood(predict, process, table, start, probes, solver)
  return -jnp.sum(nats * moving, -1)


def solver_error(
  predict: Predict,
  process: Process,
  x: Data,
  z: Data,
  known: Flags,
  moving: Flags,
  steps: int,
  solver: str | Solver = 'euler',
  reference_steps: int = 64,
) -> Float[AnyArray, ' batch']:
  """The squared error of a group generated from z in some steps, summed over its elements.

  The group is generated given data in A, and compared with what RK4 makes of it in many steps.
  """
  start = process.replace(z, x, known)
  few, many = (rows(process, known, moving, n).astype(x.dtype) for n in (steps, reference_steps))
  end = sampling.sample(predict, process, few, start, solver)
  exact = sampling.sample(predict, process, many, start, 'rk4')
  return _sum(process, process.basis.analyze(end - exact) ** 2, moving)


def rows(
  process: Process, known: Flags, moving: Flags, steps: int, power: int = 1
) -> Float[AnyArray, 'rows k']:
  """The table of one group, which alone moves, in steps even in tau; 1 - tau falls as a power."""
  taus = 1 - (1 - jnp.arange(steps + 1) / steps) ** power
  return jax.vmap(lambda tau: levels(process, known, moving, tau))(taus)


def _sum(process, values, moving):
  return jnp.sum(process.sum_by_group(values) * moving, -1)
