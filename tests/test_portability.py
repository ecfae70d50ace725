"""Every compiled program is lowered for CPUs, GPUs and TPUs: none needs what one platform lacks."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits
from gdm_jax import build, likelihood, sampling
from gdm_jax.evaluation import classifier, inception, lite0, vgg16
from gdm_jax.generation.cached import CachedWalks
from gdm_jax.losses import WEIGHTINGS
from gdm_jax.runtime import sharding
from gdm_jax.solvers import SOLVERS
from gdm_jax.training import step as training_step

PLATFORMS = 'cpu', 'cuda', 'tpu'
BATCH = 4
FORBIDDEN = {
  'callback': 'calls the host',
  'infeed': 'calls the host',
  'outfeed': 'calls the host',
  'f64': 'computes in float64',
  'platform_index': 'chooses by platform at run time',
}
"""What no program may hold, and why."""

OPTIONS = {
  'plain': {},
  'labels': {'model.classes': 10},
  'many': {
    'model.classes': 10,
    'data.augment': 0.12,
    'train.weighting': 'velocity',
    'machine.microbatches': 2,
    'machine.remat': 'cheap',
    'model.precision': 'tensorfloat32',
  },
  'bfloat16': {
    'model.dtype': 'bfloat16',
    'machine.remat': 'blocks',
    'machine.all_reduce': 'bfloat16',
    'train.times': 'discrete',
    'train.weighting': 'active',
    'train.anneal': 200_000,
  },
  'blur': {
    'basis.name': 'blur',
    'path': 'variance_preserving',
    'train.weighting': 'denoising',
    'train.low_discrepancy': False,
  },
  'frequency': {'basis.name': 'cosine', 'model.space': 'frequency'},
  'mlp': {'model.name': 'mlp'},
  'context-unet': {'model.name': 'context_unet', 'model.classes': 10, 'data.augment': 0.12},
  'group-causal': {'model.name': 'group_causal', 'model.classes': 10},
}
"""Every option of a training step is in one of them."""


def lower(function, *arguments):
  """Lowers a program for every platform; AssertionError if it holds what no program may.

  `jax.export` itself refuses calls into libraries that not every later version has.
  """
  jitted = jax.jit(function)  # traced once
  for platform in PLATFORMS:
    text = jax.export.export(jitted, platforms=[platform])(*arguments).mlir_module()
    for part, what in FORBIDDEN.items():
      assert not re.search(rf'\b\w*{part}', text), f'for {platform} it {what}'


def tiny(options):
  config = digits.get_config()
  config.model.ddpmpp.update(channels=8, multipliers=(1,))
  config.model.group_causal.update(width=16, depth=1)
  config.model.context_unet.update(channels=8, multipliers=(1,), blocks=1, denoiser_channels=8)
  config.train.batch = BATCH
  config.sampling.steps = (8,)
  config.update_from_flattened_dict(options)
  return config


@functools.cache
def parts(name='plain'):
  """A config, its system and abstract parameters."""
  config = tiny(OPTIONS[name])
  system = build.system(config)
  return config, system, jax.eval_shape(system.predictor.init, jax.random.key(0))


def abstract(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


X, LABELS = abstract(BATCH, 8, 8, 1), abstract(BATCH, dtype=jnp.int32)


@pytest.mark.parametrize('name', OPTIONS)
def test_training_steps(name):
  config, system, _ = parts(name)
  optimizer = build.optimizer(config)
  inputs = training_step.abstract_inputs(config, system, optimizer)
  lower(training_step.make_train_step(config, system, optimizer, sharding.mesh()), *inputs)


def test_every_weighting_is_among_them():
  assert {parts(name)[0].train.weighting for name in OPTIONS} == {*WEIGHTINGS}


def test_the_convolutions_of_cpus_stay_there():
  config = tiny({'model.ddpmpp.channels': 128})
  system = build.system(config)
  params = jax.eval_shape(system.predictor.init, jax.random.key(0))
  x, alpha = abstract(64, 8, 8, 1), abstract(64, system.process.grouping.num_groups)
  program = {
    platform: jax.export.export(jax.jit(system.predictor), platforms=[platform])(params, x, alpha)
    for platform in PLATFORMS
  }
  count = {p: program[p].mlir_module().count('stablehlo.convolution') for p in PLATFORMS}
  assert count['cpu'] < count['cuda'] == count['tpu']
  assert not any('platform_index' in program[p].mlir_module() for p in PLATFORMS)


@pytest.mark.parametrize('solver', SOLVERS)
def test_sampling_and_encoding(solver):
  _, system, params = parts('labels')
  rows = abstract(9, system.process.grouping.num_groups)

  def both(params, table, z, label):
    predict = system.predictor.bind(params, label, 2.0)
    given = predict, system.process, table
    return sampling.sample(*given, z, solver), sampling.encode(*given, z, solver)

  lower(both, params, rows, X, LABELS)


def test_sweeps_trajectories_and_completion():
  _, system, params = parts()
  k = system.process.grouping.num_groups

  def all_three(params, tables, z, seeds):
    predict, process = system.predictor.bind(params), system.process
    z = z + sampling.latents(seeds, z.shape[1:])
    return (
      sampling.sweep(predict, process, tables, z),
      sampling.trajectory(predict, process, tables[0], z),
      sampling.complete(predict, process, tables[0], z, (0, 2), z),
    )

  lower(all_three, params, abstract(3, 9, k), X, abstract(BATCH, dtype=jnp.uint32))


@pytest.mark.parametrize('probes', [0, 1])
def test_likelihoods(probes):
  config, system, params = parts()
  table = np.asarray(build.sampling_table(config, system))

  def nats(params, x, directions):
    predict = system.predictor.bind(params)
    return likelihood.log_likelihood(
      predict, system.process, table, x, directions if probes else None, 'midpoint'
    )

  lower(nats, params, X, abstract(1, *X.shape))


@pytest.mark.parametrize('solver', ['midpoint', 'adams_bashforth2'])
@pytest.mark.parametrize('network', ['group-causal', 'context-unet'])
def test_generation_with_cached_groups(network, solver):
  config, system, params = parts(network)
  walks = CachedWalks(system, SOLVERS[solver], sharding.mesh(), 1.0)
  plan = walks.plan(build.sampling_table(config, system), 2)

  def there_and_back(params, z, labels):
    for states in (walks.forward, walks.backward):
      for state in states(params, plan, z, labels):
        z = state.y
    return z

  lower(there_and_back, params, X, LABELS)


@pytest.mark.parametrize('network', [inception.Inception(), lite0.Lite0(), vgg16.VGG16()], ids=repr)
def test_published_features(network):
  images = abstract(2, 32, 32, 3, dtype=jnp.uint8)
  params = jax.eval_shape(network.init, jax.random.key(0), images)
  lower(network.apply, params, images)


def test_the_classifier():
  network = classifier.Classifier(10)
  images = abstract(2, 8, 8, 1, dtype=jnp.uint8)
  lower(network.apply, jax.eval_shape(network.init, jax.random.key(0), images), images)


@pytest.mark.parametrize(
  'function',
  [
    lambda x: jax.debug.print('{}', x.sum()),
    lambda x: jax.pure_callback(np.sin, x, x),
    lambda x: jnp.sum(x.astype(jnp.float64)),
  ],
  ids=['print', 'callback', 'float64'],
)
def test_this_would_be_seen(function):
  def program(x):
    return function(x), x

  with pytest.raises((AssertionError, NotImplementedError)), jax.enable_x64(True):
    lower(program, abstract(4))
