"""All conditionals in one pass are those of separate passes, and so are their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax import autoregression, basis, grouping, schedule
from gdm_jax.process import Process
from tests.support import causal

pytestmark = pytest.mark.usefixtures('float64')

GRID = (4, 6)


@pytest.mark.parametrize('strategies', ['one', 'two'])
def test_one_pass_of_all_groups_equals_one_for_each(strategies):
  """Loss and gradient of parallel training, against separate predictions."""
  fine, coarse = grouping.blocks(GRID, (2, 3)), grouping.rows(GRID, 2)
  refined, indices = grouping.refine(fine, coarse)
  process = Process(refined, basis.pixel(GRID))
  predictor = causal.predictor(process, patch=2, dtype=jnp.float64)
  params = causal.random_params(predictor, dtype=jnp.float64)
  order = [np.array([[4, 0, 2, 1, 5, 3], [0, 1, 2, 3, 4, 5]]), np.array([[0, 1], [1, 0]])]
  which = 0 if strategies == 'one' else 1
  diffusion = schedule.sequential(order[which]).over(indices[which])
  t = schedule.times_of_groups(jax.random.key(3), diffusion)
  level = schedule.coefficients(schedule.of_each_group(diffusion), t)[..., 0]
  x, z = np.random.default_rng(0).normal(size=(2, 2, *GRID, 1))

  def together(params):
    u = predictor.conditionals(params, x, process.diffuse(x, z, level), level, diffusion)
    return jnp.sum((x - z - u) ** 2)

  def one_by_one(params):
    total = 0
    for interval in range(len(set(indices[which]))):
      # The time of the interval; groups generated earlier are known, later ones noise.
      own = np.asarray(diffusion.start) == np.sort(np.unique(diffusion.start))[interval]
      time = np.max(np.where(own, t, 0), axis=1)
      alpha = schedule.coefficients(diffusion, time)
      u = predictor(params, process.diffuse(x, z, alpha), alpha)
      of_own = jnp.take(own, process.grouping.of_elements, axis=-1)
      total += jnp.sum(jnp.where(of_own, x - z - u, 0) ** 2)
    return total

  (a, gradient_a), (b, gradient_b) = (
    jax.jit(jax.value_and_grad(f))(params) for f in (together, one_by_one)
  )
  np.testing.assert_allclose(a, b, rtol=1e-10)
  jax.tree.map(
    lambda g, h: np.testing.assert_allclose(g, h, rtol=1e-8, atol=1e-10), gradient_a, gradient_b
  )


def test_the_errors_of_an_autoregressive_model_take_one_pass():
  process = Process(grouping.elements((6,)), basis.pixel((6,)))
  predictor = causal.predictor(process, dtype=jnp.float64)
  params = causal.random_params(predictor, dtype=jnp.float64)
  table = np.asarray(schedule.table(schedule.sequential((3, 0, 5, 1, 2, 4)), 6))
  x, z = np.random.default_rng(0).normal(size=(2, 2, 6, 1))
  diffusion = jax.tree.map(lambda ends: np.tile(ends, (2, 1)), schedule.of_table(table))

  def conditionals(x, x_t, alpha):
    return predictor.conditionals(params, x, x_t, alpha, diffusion)

  np.testing.assert_allclose(
    autoregression.squared_errors_at_once(conditionals, process, x, z),
    autoregression.squared_errors(predictor.bind(params), process, table, x, z),
    rtol=1e-10,
  )
