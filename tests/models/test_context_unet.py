"""The context network and its denoiser: who sees whom, the cache, and what it learns."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params

from configs import digits_context
from gdm_jax import basis, build, caching, grouping, losses, path, sampling, schedule
from gdm_jax.process import Process
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training import step as training_step
from tests.support import causal, gaussian

STEPS, BATCH = 150, 128


def pixels(groups):
  return Process(groups, basis.pixel(groups.shape))


BLOCKS = pixels(grouping.blocks((4, 6), (2, 3)))
PROCESSES = {
  'blocks': BLOCKS,
  'rows of unequal height': pixels(grouping.rows((5, 4), 3)),
  'lattices': pixels(grouping.cascade((4, 4), 3)),
  'channels': pixels(grouping.channels((2, 2), 2)),
  'elements': pixels(grouping.elements((2, 3))),
}


def noise(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def model(process, channels=1, **options):
  found = causal.context_predictor(process, channels, **options)
  return found, causal.random_params(found)


def plan_of(predictor, table):
  return caching.plan(table, predictor.network.tokens.groups)


def test_groups_not_started_change_nothing_bit_for_bit():
  """Proposition 3.3, for random parameters."""
  predictor, params = model(BLOCKS)
  alpha = np.tile([1, 0.3, 0, 0, 0, 0], (2, 1)).astype(np.float32)
  predict = jax.jit(predictor.bind(params))

  def of(*groups):
    return np.broadcast_to(BLOCKS.coefficient_map(np.isin(np.arange(6), groups)), (4, 6, 1))

  x, other = noise(2, 4, 6, 1), noise(2, 4, 6, 1, seed=1)
  found, changed = (predict(y, alpha) for y in (x, np.where(of(2, 3, 4, 5), other, x)))
  np.testing.assert_array_equal(found[:, of(0, 1)], changed[:, of(0, 1)])
  # What is expected of a group not started does not depend on its own noise either: u = E[x] - z.
  np.testing.assert_allclose((found + x)[:, of(2)], (changed + other)[:, of(2)], atol=1e-6)
  for group in (0, 1):
    changed = predict(np.where(of(group), other, x), alpha)
    assert np.abs(found - changed)[:, of(1)].max() > 1e-3
  np.testing.assert_array_equal(found[:, of(0)], x[:, of(0)])


@pytest.mark.parametrize('name', PROCESSES)
def test_several_groups_in_one_pass_are_those_of_a_pass_each(name):
  process = PROCESSES[name]
  channels = 2 if name == 'channels' else 1
  predictor, params = model(process, channels)
  k, x = process.grouping.num_groups, noise(2, *process.grouping.shape, channels)
  alpha = np.linspace(1, 0.2, k, dtype=np.float32)
  predict = jax.jit(predictor.bind(params))
  together = predict(x, np.tile(alpha, (2, 1)))
  for group in range(1, k):
    alone = np.where(np.isin(np.arange(k), (0, group)), alpha, 0)
    own = np.broadcast_to(process.coefficient_map(np.arange(k) == group), x.shape[1:]) > 0
    u = predict(x, np.tile(alone, (2, 1)))
    np.testing.assert_allclose(together[:, own], u[:, own], atol=1e-5)


@pytest.mark.parametrize('curve', [path.linear, path.variance_preserving])
def test_before_training_it_is_optimal_for_independent_elements(curve):
  process = Process(BLOCKS.grouping, BLOCKS.basis, curve)
  predictor = causal.context_predictor(process)
  level = np.linspace(0, 0.9, 6, dtype=np.float32)
  a, b = (v[process.grouping.labels][..., None] for v in (curve.signal(level), curve.noise(level)))
  x = noise(1, 4, 6, 1)
  u = jax.jit(predictor)(jax.jit(predictor.init)(jax.random.key(0)), x, level[None])
  # E[x - z | a x + b z] of x ~ N(0, 1/4).
  np.testing.assert_allclose(u, (a / 4 - b) / (a**2 / 4 + b**2) * x, atol=1e-3)


def convolutions(jaxpr, loops=0):
  """How many there are, by how many loops they are in; (depth, count) pairs."""
  found = collections.Counter()
  for equation in jaxpr.eqns:
    found[loops] += equation.primitive.name == 'conv_general_dilated'
    for inner in jaxprs_in_params(equation.params):
      found += convolutions(inner, loops + (equation.primitive.name in ('scan', 'while')))
  return found


def test_the_context_network_runs_once_a_group():
  """The loop over the groups has both networks, and that over a group's steps only the denoiser."""
  predictor, params = model(BLOCKS, blocks=3)
  plan = plan_of(predictor, np.asarray(BLOCKS.table(schedule.sequential(range(6)), 24)))
  program = jax.make_jaxpr(lambda z: caching.sample(predictor.bind_cached(params), BLOCKS, plan, z))
  counts = convolutions(program(noise(1, 4, 6, 1)).jaxpr)
  of_context, of_denoiser = (
    sum(leaf.ndim == 4 for leaf in jax.tree.leaves(params[name]))
    for name in ('context_network', 'denoiser')
  )
  parts = len(plan.segments)
  assert +counts == {1: parts * of_context, 2: parts * of_denoiser}


def test_generated_groups_depend_on_no_later_latent_bit_for_bit():
  predictor, params = model(BLOCKS)
  table = np.asarray(BLOCKS.table(schedule.sequential((2, 0, 3, 1, 5, 4)), 12))
  plan, z = plan_of(predictor, table), noise(1, 4, 6, 1)
  walk = jax.jit(lambda z: caching.sample(predictor.bind_cached(params), BLOCKS, plan, z))
  later = BLOCKS.coefficient_map(np.isin(np.arange(6), (3, 1, 5, 4)))
  a, b = walk(z), walk(jnp.where(later, -z, z))
  np.testing.assert_array_equal(np.where(later, 0, a), np.where(later, 0, b))
  assert np.abs(np.where(later, a - b, 0)).max() > 0.1


def test_many_orders_are_one_program():
  predictor, params = model(BLOCKS)
  orders = [np.random.default_rng(i).permutation(6) for i in range(8)]
  tables = [np.asarray(BLOCKS.table(schedule.sequential(order), 6)) for order in orders]
  z = noise(2, 4, 6, 1)

  @jax.jit
  def sweep(plans):
    cached = predictor.bind_cached(params)
    return jax.vmap(lambda plan: caching.sample(cached, BLOCKS, plan, z))(plans)

  parts = tables[:4], tables[4:]
  x = np.concatenate([sweep(caching.plans(p, predictor.network.tokens.groups)) for p in parts])
  assert sweep._cache_size() == 1
  plain = jax.jit(lambda t: sampling.sample(predictor.bind(params), BLOCKS, t, z))
  np.testing.assert_allclose(x[3], plain(tables[3]), atol=1e-4)


def config_of(**changes):
  config = digits_context.get_config()
  config.model.context_unet.update(channels=4, denoiser_channels=4)
  config.update_from_flattened_dict(changes)
  return config


@pytest.mark.parametrize('times', ['continuous', 'discrete'])
def test_every_group_that_is_not_known_is_trained_as_the_next(times):
  config = config_of(**{'train.times': times})
  system = build.system(config)
  x = jnp.zeros((512, 8, 8, 1))
  keys = training_step.random_keys(0, 3)
  _, alpha, rate, diffusion = training_step.draw_noise(config, system, keys, x)
  known = np.asarray(alpha) == 1
  # 0 to 3 known ones, equally often, those that the order generates first.
  np.testing.assert_array_equal(np.bincount(known.sum(1)), [128] * 4)
  generated = np.argsort(np.argsort(-np.asarray(diffusion.start), axis=1), axis=1)
  np.testing.assert_array_equal(known, generated < known.sum(1, keepdims=True))
  np.testing.assert_allclose(rate, np.where(known, 0, -4), rtol=1e-5)
  unknown = np.asarray(alpha)[~known]
  if times == 'discrete':
    np.testing.assert_array_equal(unknown, 0)
  else:
    shares, _ = np.histogram(unknown, 4, (0, 1))
    np.testing.assert_allclose(shares / len(unknown), 0.25, atol=0.03)


def test_in_an_order_of_its_own_later_groups_wait():
  config = config_of(**{'strategies.main.order': (2, 0, 1, 3)})
  system = build.system(config)
  keys = training_step.random_keys(0, 3)
  _, alpha, _, _ = training_step.draw_noise(config, system, keys, jnp.zeros((64, 8, 8, 1)))
  assert np.max(np.sum((alpha > 0) & (alpha < 1), axis=1)) == 1


def test_it_learns_the_conditionals_of_a_gaussian():
  """Conditional means in the order and the level that a step of sampling would meet."""
  config = config_of(
    **{'data.shape': (2, 2, 1), 'train.batch': BATCH, 'machine.convolutions': 'direct'}
  )
  config.model.context_unet.update(
    **{'channels': 16, 'multipliers': (1,), 'dropout': 0.0, 'features': 8},
    **{'denoiser_channels': 16, 'denoiser_multipliers': (1,)},
  )
  system = build.system(config)
  process, covariance = system.process, 0.05 * np.eye(4) + 0.2  # elements deviate by 0.5
  data = gaussian.Mixture(np.ones(1), np.zeros((1, 4)), covariance[None])
  factor = np.linalg.cholesky(data.cov)
  optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, STEPS))

  @jax.jit
  def step(params, state, i):
    keys = training_step.random_keys(1, i)
    x = data.mean + jax.random.normal(keys['augment'], (BATCH, 4)) @ factor.T
    x = x.reshape(-1, 2, 2, 1)
    z, alpha, rate, _ = training_step.draw_noise(config, system, keys, x)

    def loss(params):
      predict = system.predictor.bind(params)
      return losses.loss(predict, process, x, z, alpha, rate, 'active').mean()

    updates, state = optimizer.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, updates), state

  rng = np.random.default_rng(5)
  examples = rng.multivariate_normal(data.mean, data.cov, 128).reshape(-1, 2, 2, 1)
  latents, optimal = rng.normal(size=examples.shape), gaussian.optimal(data, process)
  predict = jax.jit(system.predictor)

  def error(params, level):
    """Of group 2 after groups 0 and 3, at a level; root mean square."""
    alpha = np.tile(np.array([1, 0, level, 1], np.float32), (128, 1))
    x_t = process.diffuse(examples.astype(np.float32), latents.astype(np.float32), alpha)
    off = np.asarray(predict(params, x_t, alpha) - optimal(x_t, alpha))[:, 1, 0]
    return np.sqrt(np.mean(off**2))

  first = params = system.predictor.init(jax.random.key(0))
  state = optimizer.init(params)
  for i in range(STEPS):
    params, state = step(params, state, i)
  for level in (0.0, 0.5):
    assert error(params, level) < 0.3 * error(first, level)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'strategies.main.overlap': 0.5}, 'strategies.main has intervals that overlap'),
    ({'strategies.main.overlap': 1.0}, 'strategies.main has intervals that overlap'),
    (
      {'strategies.halves': {'grouping': 'rows', 'groups': (2,)}},
      'strategies.halves has 2 groups in 4 parts; group_causal and ddpmpp take it',
    ),
    (
      {
        **{'basis.name': 'cosine', 'model.space': 'frequency'},
        **{'strategies.main.grouping': 'bands', 'strategies.main.groups': (4,)},
      },
      'groups of frequencies are no images',
    ),
    ({'model.context_unet.features': 0}, 'model.context_unet.features = 0 must be positive'),
    ({'model.context_unet.denoiser_multipliers': ()}, 'must be positive whole numbers'),
    ({'data.shape': (8, 8, 8, 1), 'strategies.main.groups': (1, 2, 2)}, 'DDPM++ takes images'),
  ],
)
def test_bad_input_names_the_key(changes, message):
  config = config_of()
  if 'strategies.halves' in changes:
    config.strategies.halves = config.strategies.main.copy_and_resolve_references()
    config.strategies.halves.update(changes['strategies.halves'])
  else:
    config.update_from_flattened_dict(changes)
  with pytest.raises(ConfigError, match=message.replace('(', r'\(').replace('++', r'\+\+')):
    build.system(config)
