"""One step of the generative ODE from one row of signal levels to the next.

In the coordinate tau of `path` the ODE is dy = u dtau whatever the path, and every solver here is
the textbook's for it: h is the change of tau, and `process.advance` adds h u. Nothing in a solver
knows which row holds more signal, so each serves both directions. A state and the predictions are
pytrees of the same structure; for sampling each is one array.
"""

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gdm_jax.process import Data

Predict = Callable[[Data, Float[Array, 'batch k']], Data]


class State(NamedTuple):
  """Where a solver is: the point x, and whatever it remembers of its way there."""

  x: Data
  memory: Any = ()


class Pair(NamedTuple):
  """What a reversible solver needs to go back exactly: the point and its companion."""

  x: Data
  companion: Data


@dataclasses.dataclass(frozen=True)
class Solver:
  """A step rule.

  order: of convergence, as the rows get denser; None for one that controls its own error.
  evaluations: of the network, a step.
  step(predict, process, state, alpha, next_alpha) -> state, alpha [batch, k].
  start(predict, process, x, alpha) -> the state on the first row.
  reversible: whether the same steps, walked back from the `Pair` they ended in, undo themselves.
  """

  name: str
  order: int | None
  evaluations: int
  step: Callable[..., State]
  start: Callable[..., State] = lambda predict, process, x, alpha: State(x)
  reversible: bool = False

  def cost(self, steps: int) -> int | None:
    """Evaluations of the network along that many steps; None where the solver decides."""
    return None if self.order is None else steps * self.evaluations + self.reversible

  def steps(self, evaluations: int) -> int:
    """How many steps that many evaluations are enough for."""
    return (evaluations - self.reversible) // self.evaluations


def _runge_kutta(name: str, order: int, nodes: Sequence[float], weights: Sequence[float]) -> Solver:
  """Stage i evaluates u a fraction nodes[i] of the way ahead, along the prediction of stage i-1."""

  def step(predict, process, state, alpha, next_alpha):
    x = state.x
    if len(nodes) == 1:
      return State(process.advance(x, predict(x, alpha), alpha, next_alpha))

    def stage(carry, coefficients):
      u, mean = carry
      node, weight = coefficients
      level = process.between(alpha, next_alpha, node)
      u = predict(process.advance(x, u, alpha, level), level)
      return (u, jax.tree.map(lambda m, v: m + (weight * v).astype(m.dtype), mean, u)), None

    # A scan, so that the network is compiled once however many stages there are.
    zero = jax.tree.map(jnp.zeros_like, x)
    tableau = jnp.asarray(nodes, float), jnp.asarray(weights, float)
    (_, mean), _ = jax.lax.scan(stage, (zero, zero), tableau)
    return State(process.advance(x, mean, alpha, next_alpha))

  return Solver(name, order, len(nodes), step)


euler = _runge_kutta('euler', 1, (0,), (1,))
"""Order 1, one evaluation a step: the paper's solver (Table 1)."""

midpoint = _runge_kutta('midpoint', 2, (0, 1 / 2), (0, 1))
"""Order 2, two evaluations a step: Euler to the middle, and the slope found there (Runge 1895).

Order 3 where the data are Gaussian: x_t's variance is then quadratic in tau, and for that the
leading term of the error vanishes."""

heun = _runge_kutta('heun', 2, (0, 1), (1 / 2, 1 / 2))
"""Order 2, two evaluations a step: the trapezoid rule (Karras et al. 2022, Algorithm 1)."""

rk4 = _runge_kutta('rk4', 4, (0, 1 / 2, 1 / 2, 1), (1 / 6, 1 / 3, 1 / 3, 1 / 6))
"""Order 4, four evaluations a step: the classical Runge-Kutta method (Kutta 1901)."""


def _bashforth_start(predict, process, x, alpha):
  return State(x, (jax.tree.map(jnp.zeros_like, x), alpha))


def _bashforth_step(predict, process, state, alpha, next_alpha):
  before, last_alpha = state.memory
  u = predict(state.x, alpha)
  tau = process.path.tau
  now, then = tau(next_alpha) - tau(alpha), tau(alpha) - tau(last_alpha)
  # Where other groups move than in the last step, the slope found there belongs to another ODE.
  known = jnp.all((now != 0) == (then != 0), axis=-1)
  now, then = (jnp.sum(jnp.abs(h), axis=-1) for h in (now, then))
  half = jnp.where(known & (then > 0), now / jnp.where(then > 0, then, 1), 0) / 2

  def extrapolate(new, old):
    return new + (new - old) * half.reshape(-1, *[1] * (new.ndim - 1)).astype(new.dtype)

  slope = jax.tree.map(extrapolate, u, before)
  return State(process.advance(state.x, slope, alpha, next_alpha), (u, alpha))


adams_bashforth2 = Solver('adams_bashforth2', 2, 1, _bashforth_step, _bashforth_start)
"""Order 2, one evaluation a step: two-step Adams-Bashforth for uneven steps (Hairer, Norsett and
Wanner 1993, III.5). A group's first step is Euler's: the history starts anew at every boundary."""


def _reversible_start(predict, process, x, alpha):
  x, companion = x if isinstance(x, Pair) else Pair(x, x)
  return State(x, (companion, predict(companion, alpha)))


def _reversible_step(predict, process, state, alpha, next_alpha):
  x, (companion, u) = state
  companion = process.advance(2 * x - companion, u, alpha, next_alpha)
  ahead = predict(companion, next_alpha)
  return State(process.advance(x, (u + ahead) / 2, alpha, next_alpha), (companion, ahead))


reversible_heun = Solver(
  'reversible_heun', 2, 1, _reversible_step, _reversible_start, reversible=True
)
"""Order 2, one evaluation a step and one to start: algebraically invertible (Kidger et al. 2021b,
Algorithm 1). The point x is carried with a companion, and the network sees the companion."""


def adaptive(rtol: float = 1e-5, atol: float = 1e-5) -> Solver:
  """From row to row as exactly as asked: Dormand-Prince 5(4), steps chosen by the worst example.

  The reference for the others, through diffrax, which is an optional dependency. The rows need
  only be the boundaries of the groups (`schedule.table` with one step each); a step takes 7
  evaluations at the least, and as many as its error asks for.
  """

  def step(predict, process, state, alpha, next_alpha):
    import diffrax

    # With u = 0 a point moves along its path alone; the integrator sees what is left.
    still = jax.tree.map(jnp.zeros_like, state.x)

    def slope(fraction, x, _):
      level = process.between(alpha, next_alpha, fraction)
      u = predict(process.advance(x, still, alpha, level), level)
      whole = process.advance(still, u, alpha, next_alpha)
      return process.advance(whole, still, next_alpha, alpha)

    controller = diffrax.PIDController(rtol=rtol, atol=atol, norm=_worst_example)
    solution = diffrax.diffeqsolve(
      diffrax.ODETerm(slope),
      diffrax.Dopri5(),
      t0=0.0,
      t1=1.0,
      dt0=None,
      y0=state.x,
      stepsize_controller=controller,
      max_steps=None,
      adjoint=diffrax.ForwardMode(),
    )
    end = jax.tree.map(lambda y: y[0], solution.ys)
    return State(process.advance(end, still, alpha, next_alpha))

  return Solver('adaptive', None, 7, step)


def _worst_example(error):
  def rms(leaf):
    return jnp.sqrt(jnp.mean(leaf**2, axis=tuple(range(1, leaf.ndim))))

  return jnp.max(jnp.stack([jnp.max(rms(leaf)) for leaf in jax.tree.leaves(error)]))


SOLVERS = {
  solver.name: solver
  for solver in (euler, midpoint, heun, rk4, adams_bashforth2, reversible_heun, adaptive())
}


def find(solver: str | Solver) -> Solver:
  """The solver of that name, or the solver itself.

  Raises ValueError for an unknown name, and for 'adaptive' where diffrax is not installed.
  """
  if isinstance(solver, Solver):
    return solver
  if solver not in SOLVERS:
    raise ValueError(f'solver {solver!r} is unknown; there are {", ".join(sorted(SOLVERS))}')
  if solver == 'adaptive' and importlib.util.find_spec('diffrax') is None:
    raise ValueError("solver 'adaptive' needs diffrax: pip install diffrax")
  return SOLVERS[solver]
