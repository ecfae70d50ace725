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
  anticipates: whether it uses what the network predicts of groups that do not move yet.
  """

  name: str
  order: int | None
  evaluations: int
  step: Callable[..., State]
  start: Callable[..., State] = lambda predict, dynamics, y, alpha: State(y)
  reversible: bool = False
  anticipates: bool = False

  @property
  def first_evaluations(self) -> int:
    """Evaluations of the network on the first row, before any step."""
    return int(self.reversible or self.anticipates)

  def cost(self, steps: int) -> int | None:
    """Evaluations of the network along that many steps; None if the solver decides."""
    return None if self.order is None else steps * self.evaluations + self.first_evaluations

  def steps(self, evaluations: int) -> int:
    """How many steps that many evaluations are enough for."""
    return (evaluations - self.first_evaluations) // self.evaluations


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
  slope = jax.tree.map(lambda new, old: _extrapolated(new, old, half), u, last_u)
  return State(dynamics.advance(state.y, slope, alpha, next_alpha), (u, alpha))


def _extrapolated(new, old, ahead):
  """Where the line from old to new is, `ahead` [batch] times their distance beyond new."""
  return new + (new - old) * ahead.reshape(-1, *[1] * (new.ndim - 1)).astype(new.dtype)


adams_bashforth2 = Solver('adams_bashforth2', 2, 1, _bashforth_step, _bashforth_start)
"""Order 2, one evaluation a step: two-step Adams-Bashforth for uneven steps (Hairer, Norsett and
Wanner 1993, III.5). A group's first step is Euler's: the history is reset at every
group boundary."""


def _multistep_midpoint_start(predict, dynamics, y, alpha):
  u = predict(y, alpha)
  return State(y, ((u, alpha), (u, alpha)))


def _multistep_midpoint_step(predict, dynamics, state, alpha, next_alpha):
  y, ((u, u_alpha), (last_u, last_alpha)) = state
  tau = dynamics.path.tau
  step, since, gap = (
    tau(b) - tau(a) for a, b in ((alpha, next_alpha), (u_alpha, alpha), (last_alpha, u_alpha))
  )
  # At a boundary u itself is the slope: along the path it is continuous, and only bends there.
  same_groups = jnp.all((step != 0) == (since != 0), axis=-1)
  since, gap = (jnp.sum(jnp.abs(h), axis=-1) for h in (since, gap))
  ahead = jnp.where(same_groups & (gap > 0), since / jnp.where(gap > 0, gap, 1), 0)
  slope = jax.tree.map(lambda new, old: _extrapolated(new, old, ahead), u, last_u)
  middle = dynamics.between(alpha, next_alpha, 0.5)
  next_u = predict(dynamics.advance(y, slope, alpha, middle), middle)
  # After a boundary the older of the two predictions is the one that was carried over it.
  u_alpha = jnp.where(same_groups[:, None], u_alpha, alpha)
  memory = (next_u, middle), (u, u_alpha)
  return State(dynamics.advance(y, next_u, alpha, next_alpha), memory)


multistep_midpoint = Solver(
  'multistep_midpoint',
  2,
  1,
  _multistep_midpoint_step,
  _multistep_midpoint_start,
  anticipates=True,
)
"""Order 2, one evaluation a step and one to start: the midpoint rule, whose slope at the beginning
of a step is extrapolated from the last two predictions (Song and Lai 2024 take the last one).

A group begins with what the last evaluation before it predicted of it, so it needs neither a step
of lower order nor an evaluation more. Order 3 where the data are Gaussian, as `midpoint`. The
network must have learnt to predict groups before they move."""


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
  7 evaluations, and as many as its error asks for. Where the steps end before the row, as they do
  at a prediction that is not finite, the point is NaN. Raises ValueError for a tolerance that is
  not positive.
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

    # A prediction that is not finite ends the steps: they are made shorter down to the least.
    shortest = {'dtmin': 1e-7, 'force_dtmin': False}
    controller = diffrax.PIDController(rtol=rtol, atol=atol, norm=_worst_example, **shortest)
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
      throw=False,  # which would call the host from inside the program
    )
    arrived = solution.result == diffrax.RESULTS.successful
    end = jax.tree.map(lambda y: jnp.where(arrived, y[0], jnp.nan), solution.ys)
    return State(dynamics.advance(end, still, alpha, next_alpha))

  default = (rtol, atol) == (1e-5, 1e-5)
  name = 'adaptive' if default else f'adaptive(rtol={rtol:g}, atol={atol:g})'
  return Solver(name, None, 7, step)


def _worst_example(error):
  def rms(leaf):
    return jnp.sqrt(jnp.mean(leaf**2, axis=tuple(range(1, leaf.ndim))))

  worst = jnp.max(jnp.stack([jnp.max(rms(leaf)) for leaf in jax.tree.leaves(error)]))
  return jnp.where(jnp.isfinite(worst), worst, 1e6)


SOLVERS = {
  solver.name: solver
  for solver in (
    *(euler, midpoint, heun, rk4, adams_bashforth2, multistep_midpoint),
    *(reversible_heun, adaptive()),
  )
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
