"""A small group-causal model, trained in all orders at once, reaches the closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gdm_jax import basis, caching, grouping, losses, schedule
from gdm_jax.process import Process
from tests.support import causal, gaussian

STEPS, BATCH = 500, 512


def test_a_small_one_learns_the_conditionals_of_a_gaussian():
  """Conditional means and log-likelihood, in several orders of one model."""
  d, orders = 3, np.array([[0, 1, 2], [2, 0, 1], [1, 2, 0]])
  process = Process(grouping.elements((d,)), basis.pixel((d,)))
  data = gaussian.mixture(d, seed=3)
  model = causal.predictor(process, width=32, depth=2, heads=1)
  optimizer = optax.adam(optax.cosine_decay_schedule(8e-3, STEPS))
  factor = np.linalg.cholesky(data.cov)

  def step(carry, key):
    params, state = carry
    keys = jax.random.split(key, 4)
    x = data.mean + jax.random.normal(keys[0], (BATCH, d)) @ factor.T
    x, z = x[..., None], jax.random.normal(keys[1], (BATCH, d, 1))
    order = jnp.asarray(orders)[jax.random.randint(keys[2], (BATCH,), 0, len(orders))]
    diffusion = schedule.sequential(order)
    t, each = schedule.times_of_groups(keys[3], diffusion), schedule.of_each_group(diffusion)
    level = schedule.coefficients(each, t)[..., 0]

    def loss(params):
      def predict(x_t, level):
        return model.conditionals(params, x, x_t, level, diffusion)

      return losses.loss(predict, process, x, z, level, -jnp.ones_like(level)).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(params, updates), state), value

  params = model.init(jax.random.key(0))
  keys = jax.random.split(jax.random.key(1), STEPS)
  train = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))
  (params, _), history = train((params, optimizer.init(params)))
  assert history[-50:].mean() < 0.9 * history[:5].mean()

  rng = np.random.default_rng(5)
  x = rng.multivariate_normal(data.mean, data.cov, 64)[..., None].astype(np.float32)
  z = rng.normal(size=x.shape).astype(np.float32)
  for order in orders:
    diffusion = schedule.sequential(order)
    level = np.full((64, 3), 0.4, np.float32)
    x_t = process.diffuse(x, z, level)
    stacked = jax.tree.map(lambda bounds: jnp.tile(bounds, (64, 1)), diffusion)
    u = np.asarray(model.conditionals(params, x, x_t, level, stacked))
    optimal = gaussian.optimal(data, process)
    for i, group in enumerate(order):
      alpha = np.where(np.isin(np.arange(3), order[:i]), 1.0, 0.0).astype(np.float32)
      alpha[group] = 0.4
      x_g = process.diffuse(x, z, np.tile(alpha, (64, 1)))
      own = np.arange(3) == group
      expected = np.asarray(optimal(x_g, np.tile(alpha, (64, 1))))[:, own]
      assert np.sqrt(np.mean((u[:, own] - expected) ** 2)) < 0.3  # of targets that deviate by 1.4

    table = np.asarray(schedule.table(diffusion, 48))
    plan = caching.plan(table, model.network.tokens.groups)
    nats = caching.log_likelihood(
      model.bind_cached(params), process, plan, jnp.asarray(x), None, 'midpoint'
    )
    exact = jax.vmap(data.log_density)(x[..., 0])
    assert np.abs(np.mean(nats.sum(1) - exact)) < 0.15
