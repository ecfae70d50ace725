"""One step of the generative ODE from one row of signal levels to the next.

A solver is `step(predict, process, x_t, alpha, next_alpha) -> x_t'` with alpha [batch, k]; it
serves both directions, since nothing in it knows which row holds more signal.
"""

from collections.abc import Callable

from jaxtyping import Array, Float

from gdm_jax.process import Data, Process

Predict = Callable[[Data, Float[Array, 'batch k']], Data]


def euler(predict: Predict, process: Process, x_t, alpha, next_alpha) -> Data:
  """Order 1, one evaluation a step (the paper's solver, Table 1)."""
  return process.advance(x_t, predict(x_t, alpha), alpha, next_alpha)


def heun(predict: Predict, process: Process, x_t, alpha, next_alpha) -> Data:
  """Order 2, two evaluations a step: the trapezoid rule (Karras et al. 2022, Algorithm 1)."""
  u = predict(x_t, alpha)
  ahead = predict(process.advance(x_t, u, alpha, next_alpha), next_alpha)
  return process.advance(x_t, (u + ahead) / 2, alpha, next_alpha)


SOLVERS = {'euler': euler, 'heun': heun}


def find(name: str) -> Callable:
  """The solver of that name. Raises ValueError naming the known ones."""
  if name not in SOLVERS:
    raise ValueError(f'solver {name!r} is unknown; there are {", ".join(sorted(SOLVERS))}')
  return SOLVERS[name]
