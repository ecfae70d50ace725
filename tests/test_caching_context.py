"""Walks with a network that sees its context once a group equal the plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax import basis, caching, grouping, likelihood, sampling, schedule
from gdm_jax.process import Process
from tests.support import causal

pytestmark = pytest.mark.usefixtures('float64')

GROUPINGS = {
  'whole': grouping.whole((2, 4)),
  'blocks': grouping.blocks((4, 6), (2, 2)),
  'rows of unequal height': grouping.rows((5, 4), 3),
  'lattices': grouping.cascade((4, 4), 2),
  'channels': grouping.channels((2, 2), 2),
}


def case(name, **options):
  groups = GROUPINGS[name]
  process, channels = Process(groups, basis.pixel(groups.shape)), 1 + (name == 'channels')
  predictor = causal.context_predictor(process, channels, dtype=jnp.float64, **options)
  params = causal.random_params(predictor, dtype=jnp.float64)
  order = np.random.default_rng(1).permutation(groups.num_groups)
  table = np.asarray(process.table(schedule.sequential(order), [2, 3, 1, 2][: groups.num_groups]))
  z = jnp.asarray(np.random.default_rng(0).normal(size=(2, *groups.shape, channels)))
  return process, predictor, params, table, caching.plan(table, predictor.network.tokens.groups), z


@pytest.mark.parametrize('name', GROUPINGS)
def test_data_and_latents(name):
  process, predictor, params, table, plan, z = case(name)

  @jax.jit
  def both(params, plan):
    plain, cached = predictor.bind(params), predictor.bind_cached(params)
    x = sampling.sample(plain, process, table, z, 'adams_bashforth2')
    return (
      (x, caching.sample(cached, process, plan, z, 'adams_bashforth2')),
      (sampling.encode(plain, process, table, x), caching.encode(cached, process, plan, x)),
    )

  for plain, cached in both(params, plan):
    assert np.abs(plain - z).max() > 0.1
    np.testing.assert_allclose(cached, plain, atol=1e-9)


def test_labels_and_guidance():
  process, predictor, params, table, plan, z = case('blocks', num_classes=3)
  label, guidance = jnp.array([2, 0]), np.array([1.0, 2.5, 0.0, 1.0])

  @jax.jit
  def walks(params, plan):
    return (
      sampling.sample(predictor.bind(params, label, guidance), process, table, z),
      caching.sample(predictor.bind_cached(params, label, guidance), process, plan, z),
      caching.sample(predictor.bind_cached(params, label), process, plan, z),
    )

  plain, cached, unguided = walks(params, plan)
  np.testing.assert_allclose(cached, plain, atol=1e-9)
  assert np.abs(cached - unguided).max() > 1e-3


def test_likelihood_of_every_group():
  process, predictor, params, table, plan, x = case('blocks')
  directions = likelihood.rademacher(np.arange(2), 2, x.shape[1:])

  @jax.jit
  def both(params, plan):
    plain, cached = predictor.bind(params), predictor.bind_cached(params)
    return (
      likelihood.log_likelihood(plain, process, table, x, directions, 'euler'),
      caching.log_likelihood(cached, process, plan, x, directions, 'euler'),
    )

  plain, cached = both(params, plan)
  np.testing.assert_allclose(cached, plain, atol=1e-9)
