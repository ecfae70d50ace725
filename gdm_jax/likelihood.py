"""Log-likelihood by the instantaneous change of variables, group by group.

In the coordinate y = U^T x_t / (a + b) of `path` the ODE is dy = u dtau; y is the data at one end
of a table and the latent at the other, and (Chen et al. 2018, Eq. 8)

  log p(x) = log N(z) - sum_j int tr_j(du / dy) dtau_j,

where tr_j sums the diagonal over group j. While one group moves the others stand still, so the
map's Jacobian is a product of blocks and the sum falls apart exactly:

  log p(x) = sum_j log p(x_Sj | the groups generated before j),

each term being log N(z_Sj) and the integral over j's own interval. If the prediction is influenced
by the noise of groups not yet started, against Proposition 3.3, a term is conditional on that noise
too; if groups move at the same time, only the sum of their terms has a meaning. The total is right
in any case.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from gdm_jax import sampling, solvers
from gdm_jax.path import Path
from gdm_jax.process import Data, Process
from gdm_jax.solvers import Levels, Predict, Solver, State
from gdm_jax.typing import AnyArray, Scalar

Nats = Float[AnyArray, 'batch k']
Seeds = sampling.Seeds
Probes = Float[AnyArray, 'n batch *grid c']


class PointAndLogDet(NamedTuple):
  """The point of a solver, and the log-determinant of each group's part of the map so far."""

  x: Data
  log_det: Nats


def log_likelihood(
  predict: Predict,
  process: Process,
  table: sampling.Table,
  x: Data,
  probes: Probes | None = None,
  solver: str | Solver = 'rk4',
) -> Nats:
  """log p(x_Sj | groups generated before), in nats, of every group j; their sum is log p(x).

  table: that of generation; it is walked from data to noise.
  probes: directions of Hutchinson's estimate of the trace (`rademacher`), restricted here to the
    groups that move; an evaluation takes one derivative along each. None is the exact trace, with
    one derivative for every element (channels count) of the groups that move. Both keep the
    network's activations, as training does.

  Raises ValueError for an unknown solver and for one with `first_evaluations`.
  """
  state = start(process, table, x, solver)
  return finish(process, walk(predict, process, table, state, probes, solver))


def start(process: Process, table: sampling.Table, x: Data, solver: str | Solver) -> State:
  """The solver's state at the data, the last row of a table."""
  point = PointAndLogDet(x, jnp.zeros((len(x), process.grouping.num_groups), x.dtype))
  alpha = jnp.broadcast_to(table[-1], point.log_det.shape)
  return get_solver(solver).start(None, process, point, alpha)


def walk(
  predict: Predict,
  process: Process,
  table: sampling.Table,
  state: State,
  probes: Probes | None,
  solver: str | Solver,
) -> State:
  """The state on the first row of a table; a long one may be walked in chunks, the last first."""
  step, dynamics = get_solver(solver).step, _LikelihoodDynamics(process)

  def one(state, rows):
    with_trace = predict_with_trace(predict, process, rows[0] != rows[1], probes)
    alpha, next_alpha = (jnp.broadcast_to(row, state.y.log_det.shape) for row in rows)
    return step(with_trace, dynamics, state, alpha, next_alpha), None

  back = table[::-1]
  return jax.lax.scan(one, state, (back[:-1], back[1:]))[0]


def finish(process: Process, state: State) -> Nats:
  """The likelihood, from the state on the first row of its table."""
  z, log_det = state.y
  square = process.basis.analyze(z) ** 2
  return log_det - process.sum_by_group(square + math.log(2 * math.pi)) / 2


def get_solver(solver: str | Solver) -> Solver:
  """As `solvers.get_solver`; a solver with `first_evaluations` raises ValueError too."""
  solver = solvers.get_solver(solver)
  if solver.first_evaluations:
    # The trace is that of the groups that move.
    raise ValueError(
      f'solver {solver.name!r} evaluates before it is known which groups move next, '
      'which a likelihood cannot use'
    )
  return solver


def rademacher(seeds: Seeds, n: int, shape: tuple[int, ...]) -> Probes:
  """n Hutchinson probes of -1 and 1 for each example, from its own seed."""
  draw = jax.vmap(lambda key: jax.random.rademacher(key, (n, *shape), float), out_axes=1)
  return draw(_keys(seeds, 1))


def dequantise(x: Data, width: float, seeds: Seeds) -> Data:
  """x with uniform noise over the bin of this width about each value, one seed per example."""
  draw = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], x.dtype, -0.5, 0.5))
  return x + width * draw(_keys(seeds, 0))


def bits_per_dim(
  nats: Float[AnyArray, '*batch'] | float, dims: int, width: float = 1.0
) -> Float[AnyArray, '*batch'] | float:
  """-log2 p(x) / dims of a density; for dequantised data give the width of its bins.

  The width times the mean density over a bin is the probability of a value, so on average this
  is at least what the values cost (Theis et al. 2016, Section 3.1).
  """
  return -(nats / dims + math.log(width)) / math.log(2)


class _LikelihoodDynamics(NamedTuple):
  """`solvers.Dynamics` of a `PointAndLogDet`; its slope is u and the trace of each group."""

  process: Process

  @property
  def path(self) -> Path:
    return self.process.path

  def between(self, alpha: Levels, next_alpha: Levels, fraction: Scalar) -> Levels:
    return self.process.between(alpha, next_alpha, fraction)

  def advance(
    self, y: PointAndLogDet, slope: PointAndLogDet, alpha: Levels, next_alpha: Levels
  ) -> PointAndLogDet:
    (x, log_det), (u, trace) = y, slope
    change = self.path.tau(next_alpha) - self.path.tau(alpha)
    x = self.process.advance(x, u, alpha, next_alpha)
    return PointAndLogDet(x, log_det + change * trace)


def predict_with_trace(
  predict: Predict, process: Process, moving: Bool[AnyArray, ' k'], probes: Probes | None
) -> Callable[[PointAndLogDet, Levels], PointAndLogDet]:
  """predict(point, alpha) -> u, and tr_j(du / dy) of the groups that move, 0 of the others."""
  basis = process.basis

  def with_trace(point, alpha):
    u, push = jax.linearize(lambda x: predict(x, alpha), point.x)
    level = process.coefficient_map(alpha)
    scale = process.path.signal(level) + process.path.noise(level)  # dx_t = U scale dy
    mask = jnp.broadcast_to(process.coefficient_map(moving), u.shape[1:])
    if probes is None:
      count, mean = jnp.sum(mask), 1
      moving_first = jnp.argsort(~mask.ravel())  # the elements that move, then the others
    else:
      count = mean = len(probes)

    def add_probe(i, diagonal):
      if probes is None:
        elements = jnp.arange(mask.size).reshape(mask.shape)
        v = jnp.broadcast_to(elements == moving_first[i], u.shape)
      else:
        v = probes[i] * mask
      v = v.astype(u.dtype)
      return diagonal + v * basis.analyze(push(basis.synthesize(scale * v)))

    diagonal = jax.lax.fori_loop(0, count, add_probe, jnp.zeros_like(u)) / mean
    return PointAndLogDet(u, process.sum_by_group(diagonal))

  return with_trace


def _keys(seeds, stream):
  return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), stream))(seeds)
