"""One step of the generative ODE from one row of signal levels to the next.

In the coordinate tau of `path` the ODE is dy = u dtau whatever the path, and every solver here is
the textbook's for it: h is the change of tau, and `Dynamics.advance` adds h u. Nothing in a solver
knows which row holds more signal, so each serves both directions. A point y and the predictions of
its slope are pytrees of the same structure; for sampling each is one array.
"""

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from gdm_jax.path import Path
from gdm_jax.process import Data
from gdm_jax.typing import AnyArray, Scalar

Levels = Float[AnyArray, 'batch k']
Predict = Callable[[Data, Levels], Data]


class Dynamics(Protocol):
  """What a solver moves a point by. `Process` moves data; `likelihood` moves a log-determinant too.

  Points and slopes are pytrees of arrays [batch, ...].
  """

  path: Path

  def advance(self, y: PyTree, slope: PyTree, alpha: Levels, next_alpha: Levels) -> PyTree:
    """The point after one step with the slope held fixed (`Process.advance`)."""

  def between(self, alpha: Levels, next_alpha: Levels, fraction: Scalar) -> Levels:
    """The levels a fraction of the way (`Process.between`)."""


class State(NamedTuple):
  """Where a solver is: the point y, and what it remembers of earlier steps."""

  y: PyTree
  memory: PyTree = ()


class ReversiblePair(NamedTuple):
  """What a reversible solver needs to go back exactly: the point and its companion."""

  x: Data
  companion: Data


@dataclasses.dataclass(frozen=True)
class Solver:
  """A step rule.

  order: of convergence, as the rows get denser; None for one that controls its own error.
  evaluations: of the network, a step.
  step(predict, dynamics, state, alpha, next_alpha) -> state, alpha [batch, k].
  start(predict, dynamics, y, alpha) -> the state on the first row.
  reversible: whether the same steps, walked back from the final `ReversiblePair`, undo themselves.
  """

  name: str
  order: int | None
  evaluations: int
  step: Callable[..., State]
  start: Callable[..., State] = lambda predict, dynamics, y, alpha: State(y)
  reversible: bool = False

  def cost(self, steps: int) -> int | None:
    """Evaluations of the network along that many steps; None if the solver decides."""
    return None if self.order is None else steps * self.evaluations + self.reversible

  def steps(self, evaluations: int) -> int:
    """How many steps that many evaluations are enough for."""
    return (evaluations - self.reversible) // self.evaluations


def _runge_kutta(name: str, order: int, nodes: Sequence[float], weights: Sequence[float]) -> Solver:
  """Stage i evaluates u a fraction nodes[i] of the way ahead, along the prediction of stage i-1."""

  def step(predict, dynamics, state, alpha, next_alpha):
    y = state.y
    if len(nodes) == 1:
      return State(dynamics.advance(y, predict(y, alpha), alpha, next_alpha))

    def stage(carry, coefficients):
      u, mean = carry
      node, weight = coefficients
      level = dynamics.between(alpha, next_alpha, node)
      u = predict(dynamics.advance(y, u, alpha, level), level)
      return (u, jax.tree.map(lambda m, v: m + (weight * v).astype(m.dtype), mean, u)), None

    # A scan, so that the network is compiled once however many stages there are.
    zero = jax.tree.map(jnp.zeros_like, y)
    tableau = jnp.asarray(nodes, float), jnp.asarray(weights, float)
    (_, mean), _ = jax.lax.scan(stage, (zero, zero), tableau)
    return State(dynamics.advance(y, mean, alpha, next_alpha))

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


def _bashforth_start(predict, dynamics, y, alpha):
  return State(y, (jax.tree.map(jnp.zeros_like, y), alpha))


def _bashforth_step(predict, dynamics, state, alpha, next_alpha):
  last_u, last_alpha = state.memory
  u = predict(state.y, alpha)
  tau = dynamics.path.tau
  step, last_step = tau(next_alpha) - tau(alpha), tau(alpha) - tau(last_alpha)
  # If other groups move than in the last step, the slope of that step belongs to another ODE.
  same_groups = jnp.all((step != 0) == (last_step != 0), axis=-1)
  step, last_step = (jnp.sum(jnp.abs(h), axis=-1) for h in (step, last_step))
  usable = same_groups & (last_step > 0)
  half = jnp.where(usable, step / jnp.where(last_step > 0, last_step, 1), 0) / 2

  def extrapolate(new, old):
    return new + (new - old) * half.reshape(-1, *[1] * (new.ndim - 1)).astype(new.dtype)

  slope = jax.tree.map(extrapolate, u, last_u)
  return State(dynamics.advance(state.y, slope, alpha, next_alpha), (u, alpha))


adams_bashforth2 = Solver('adams_bashforth2', 2, 1, _bashforth_step, _bashforth_start)
"""Order 2, one evaluation a step: two-step Adams-Bashforth for uneven steps (Hairer, Norsett and
Wanner 1993, III.5). A group's first step is Euler's: the history is reset at every
group boundary."""


def _reversible_start(predict, dynamics, y, alpha):
  y, companion = y if isinstance(y, ReversiblePair) else ReversiblePair(y, y)
  return State(y, (companion, predict(companion, alpha)))


def _reversible_step(predict, dynamics, state, alpha, next_alpha):
  y, (companion, u) = state
  companion = dynamics.advance(2 * y - companion, u, alpha, next_alpha)
  next_u = predict(companion, next_alpha)
  y = dynamics.advance(y, (u + next_u) / 2, alpha, next_alpha)
  return State(y, (companion, next_u))


reversible_heun = Solver(
  'reversible_heun', 2, 1, _reversible_step, _reversible_start, reversible=True
)
"""Order 2, one evaluation a step and one to start: algebraically invertible (Kidger et al. 2021b,
Algorithm 1). The point x is carried with a companion, and the network sees the companion."""


def adaptive(rtol: float = 1e-5, atol: float = 1e-5) -> Solver:
  """From row to row to a given tolerance: Dormand-Prince 5(4), steps chosen by the worst example.

  rtol, atol: the relative and the absolute error of a step; data are about 1.

  The reference for the others, through diffrax, which is an optional dependency. The rows need
  only be the boundaries of the groups (`schedule.table` with one step each); a step takes at least
  7 evaluations, and as many as its error asks for. Raises ValueError for a tolerance that is not
  positive.
  """
  if not (rtol > 0 and atol > 0):
    raise ValueError(f'rtol = {rtol} and atol = {atol} must be positive')

  def step(predict, dynamics, state, alpha, next_alpha):
    import diffrax

    # With u = 0 a point moves along its path alone; the integrator sees the rest.
    still = jax.tree.map(jnp.zeros_like, state.y)

    def slope(fraction, y, _):
      level = dynamics.between(alpha, next_alpha, fraction)
      u = predict(dynamics.advance(y, still, alpha, level), level)
      end = dynamics.advance(still, u, alpha, next_alpha)
      return dynamics.advance(end, still, next_alpha, alpha)

    controller = diffrax.PIDController(rtol=rtol, atol=atol, norm=_worst_example)
    solution = diffrax.diffeqsolve(
      diffrax.ODETerm(slope),
      diffrax.Dopri5(),
      t0=0.0,
      t1=1.0,
      dt0=None,
      y0=state.y,
      stepsize_controller=controller,
      max_steps=None,
      adjoint=diffrax.ForwardMode(),
    )
    end = jax.tree.map(lambda y: y[0], solution.ys)
    return State(dynamics.advance(end, still, alpha, next_alpha))

  default = (rtol, atol) == (1e-5, 1e-5)
  name = 'adaptive' if default else f'adaptive(rtol={rtol:g}, atol={atol:g})'
  return Solver(name, None, 7, step)


def _worst_example(error):
  def rms(leaf):
    return jnp.sqrt(jnp.mean(leaf**2, axis=tuple(range(1, leaf.ndim))))

  return jnp.max(jnp.stack([jnp.max(rms(leaf)) for leaf in jax.tree.leaves(error)]))


SOLVERS = {
  solver.name: solver
  for solver in (euler, midpoint, heun, rk4, adams_bashforth2, reversible_heun, adaptive())
}
"""By name. Those in WITH_OPTIONS can also be made with options."""

WITH_OPTIONS: dict[str, Callable[..., Solver]] = {'adaptive': adaptive}


def get_solver(solver: str | Solver, **options: float) -> Solver:
  """The solver of that name, or the solver itself; options: of the functions in WITH_OPTIONS.

  Raises ValueError for an unknown name or option, and for 'adaptive' if diffrax is not installed.
  """
  if isinstance(solver, Solver):
    return solver
  if solver not in SOLVERS:
    raise ValueError(f'solver {solver!r} is unknown; there are {", ".join(sorted(SOLVERS))}')
  if solver == 'adaptive' and importlib.util.find_spec('diffrax') is None:
    raise ValueError("solver 'adaptive' needs diffrax: pip install diffrax")
  if not options:
    return SOLVERS[solver]
  if solver not in WITH_OPTIONS:
    raise ValueError(f'solver {solver!r} has no options, and not {", ".join(options)}')
  try:
    return WITH_OPTIONS[solver](**options)
  except TypeError as error:
    raise ValueError(f'solver {solver!r}: {error}') from None
