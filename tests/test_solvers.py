"""Solvers on an ODE with a known solution: the slope of the error is the order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax import basis as bases
from gdm_jax import grouping, solvers
from gdm_jax.process import Process
from tests.gaussian import float64  # noqa: F401

ORDERS = {'euler': 1, 'heun': 2}
PROCESS = Process(grouping.whole((3,)), bases.pixel((3,)))


def test_every_solver_has_an_order_to_check():
  assert set(solvers.SOLVERS) == set(ORDERS)


@pytest.mark.parametrize('direction', ['towards data', 'towards noise'])
@pytest.mark.parametrize(('name', 'order'), ORDERS.items())
def test_error_falls_with_the_order(name, order, direction):
  # dx / dalpha = x (1 + alpha) has the solution x exp(alpha + alpha^2 / 2).
  start, end = (0.0, 1.0) if direction == 'towards data' else (1.0, 0.0)
  x = np.array([0.5, -1.0, 2.0]).reshape(1, 3, 1)

  def predict(x_t, alpha):
    return x_t * (1 + alpha[:, :, None])

  def step(x, rows):
    return solvers.find(name)(predict, PROCESS, x, *rows), None

  def integrate(n):
    rows = jnp.linspace(start, end, n + 1)[:, None, None]
    return jax.lax.scan(step, x, (rows[:-1], rows[1:]))[0]

  exact = x * np.exp(end - start + (end**2 - start**2) / 2)
  counts = np.array([64, 128, 256])
  errors = [np.max(np.abs(integrate(n) - exact)) for n in counts]
  slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
  assert abs(slope + order) < 0.1


def test_euler_evaluates_at_the_current_row_and_heun_also_at_the_next():
  x_t = jnp.ones((1, 3, 1))
  alpha, next_alpha = jnp.full((1, 1), 0.25), jnp.full((1, 1), 0.75)
  seen = []

  def predict(x_t, alpha):
    seen.append((float(x_t[0, 0, 0]), float(alpha[0, 0])))
    return 2 * x_t

  assert solvers.euler(predict, PROCESS, x_t, alpha, next_alpha)[0, 0, 0] == 2.0
  assert seen == [(1.0, 0.25)]
  seen.clear()
  assert solvers.heun(predict, PROCESS, x_t, alpha, next_alpha)[0, 0, 0] == 2.5
  assert seen == [(1.0, 0.25), (2.0, 0.75)]


def test_unknown_solver_is_named_with_the_known_ones():
  with pytest.raises(ValueError, match="solver 'rk45' is unknown; there are euler, heun"):
    solvers.find('rk45')
