"""What saves memory changes nothing else; a run compiles each of its programs once."""

import collections
import functools
import json
import logging
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits
from experiments.benchmarks import memory
from experiments.lib import command
from gdm_jax import build, main
from gdm_jax.training import step as training_step
from tests.support import runs

BATCH = 8
PROGRAMS = {
  'create': 1,
  'step': 1,
  **dict.fromkeys(('latents', 'start', 'walk'), 3),  # for training's grids, evaluation, samples
  'extract': 2,  # features, of real images and of generated ones
}


pytestmark = pytest.mark.usefixtures('float64')


def config_of(**machine):
  config = digits.get_config()
  config.model.ddpmpp.update(channels=8, attention=(4,), dropout=0.0)
  config.train.batch = BATCH
  config.machine.update(machine)
  return config


def state_and_batch(config, system):
  """Parameters off their initial zeros, and a batch, in float64."""
  create = functools.partial(training_step.init_state, config, system, build.optimizer(config))
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda p: rng.normal(0, 0.1, p.shape), jax.eval_shape(create).params)
  state = training_step.TrainState(jnp.int32(0), params, params, None)
  state = state.replace(optimizer=build.optimizer(config).init(params))
  return state, {'x': rng.normal(size=(BATCH, 8, 8, 1)), 'label': np.zeros(BATCH, np.int32)}


def stepped(dropout=0.0, **machine):
  config = config_of(**machine)
  config.model.ddpmpp.dropout = dropout
  system = build.system(config)
  state, batch = state_and_batch(config, system)
  step = jax.jit(training_step.make_train_step(config, system, build.optimizer(config)))
  state, metrics = step(state, batch)
  # Adam's first step has the gradient's sign alone; its first moment is the gradient itself.
  return metrics, state.optimizer[0].mu


@pytest.mark.parametrize(
  'machine',
  [{'remat': 'cheap'}, {'remat': 'blocks'}, {'microbatches': 4}],
  ids=str,
)
def test_the_gradient_is_the_same(machine):
  (metrics, gradient), (expected, whole) = stepped(**machine), stepped()
  np.testing.assert_allclose(metrics['loss'], expected['loss'], rtol=1e-12)
  norm = expected['gradient_norm']
  for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(whole), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-12 * norm)


def test_microbatches_of_a_groupwise_network_have_its_gradient():
  config = config_of()
  config.model.name = 'group_causal'
  config.model.group_causal.update(width=16, depth=2)
  gradients = []
  for count in (1, 4):
    config.machine.microbatches = count
    system = build.system(config)
    state, batch = state_and_batch(config, system)
    step = jax.jit(training_step.make_train_step(config, system, build.optimizer(config)))
    gradients.append(step(state, batch)[0].optimizer[0].mu)
  largest = max(np.abs(g).max() for g in jax.tree.leaves(gradients[0]))
  for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * largest)  # the network computes in float32


def test_microbatches_take_every_other_row_and_have_a_key_each():
  x, key = jnp.arange(12.0), jax.random.key(0)

  def gradient(params, rngs, examples):
    return params, {'rows': examples.sum(), 'key': jax.random.uniform(rngs['dropout'])}

  _, mean = training_step.microbatched(gradient, 3)(1.0, key, x)
  keys = jax.random.split(key, 3)
  assert mean['rows'] == x.sum() / 3
  np.testing.assert_allclose(mean['key'], np.mean([jax.random.uniform(k) for k in keys]))


def test_remat_draws_the_same_dropout():
  gradients = stepped(0.5, remat='blocks')[1], stepped(0.5)[1], stepped()[1]
  again, expected, without = (
    np.concatenate([*map(np.ravel, jax.tree.leaves(g))]) for g in gradients
  )
  norm = np.linalg.norm(expected)
  np.testing.assert_allclose(again, expected, atol=1e-12 * norm)
  assert np.linalg.norm(without - expected) > 0.1 * norm


def test_remat_keeps_less():
  def kept(remat):
    """Bytes that the backward pass is given."""
    config = config_of(remat=remat)
    system = build.system(config)
    state, batch = state_and_batch(config, system)
    alpha = jnp.full((BATCH, 4), 0.5)

    def backward(params):
      return jax.vjp(lambda p: system.predictor(p, batch['x'], alpha), params)[1]

    leaves = jax.tree.leaves(jax.eval_shape(backward, state.params))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)

  none, cheap, blocks = map(kept, ('none', 'cheap', 'blocks'))
  assert cheap < 0.7 * none
  assert blocks < 0.7 * cheap


def test_the_plan_of_memory(tmp_path, monkeypatch, capsys):
  argv = ['', f'--config={runs.ROOT}/configs/digits.py', *runs.TINY]
  monkeypatch.setattr(sys, 'argv', argv)
  with jax.enable_x64(False):
    command.start(memory.run, memory.__doc__, trained=False)
  found = json.loads(capsys.readouterr().out)
  config = digits.get_config()
  config.model.ddpmpp.update(channels=8, multipliers=(1,), blocks=1, attention=())
  with jax.enable_x64(False):
    state = jax.eval_shape(
      lambda: training_step.init_state(config, build.system(config), build.optimizer(config))
    )
  bytes_of_state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  assert found['state_gib'] * 2**30 == pytest.approx(bytes_of_state, rel=0.01)
  assert found['scratch_gib'] > 0

  monkeypatch.setattr(sys, 'argv', [*argv, '--topology=v5e:nowhere'])
  with pytest.raises(SystemExit) as stop:
    command.start(memory.run, memory.__doc__, trained=False)
  assert stop.value.code == 2
  assert '--topology=v5e:nowhere' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (('--config.machine.remat=some',), "machine.remat = 'some': there are none, cheap, blocks"),
    (
      ('--config.machine.microbatches=3',),
      'train.batch = 16 does not divide over 1 devices in each',
    ),
    (('--config.machine.microbatches=0',), 'machine.microbatches = 0 must be positive'),
  ],
)
def test_misuse_is_named(overrides, message, tmp_path, capsys):
  assert main.main(['', *runs.arguments(tmp_path / 'run', *overrides)]) == 2
  assert message in capsys.readouterr().err


def test_a_whole_run_compiles_each_program_once(tmp_path, caplog):
  jax.clear_caches()
  evaluated = '--config.evaluation.features=pixels', '--config.evaluation.seeds=0-29'
  often = '--config.evaluation.every=64', '--config.log.samples_every=64'
  arguments = runs.arguments(tmp_path / 'run', *evaluated, *often, steps=12)
  with jax.log_compiles(True), caplog.at_level(logging.WARNING):
    assert main.main(['', *arguments]) == 0
    assert main.main(['', *arguments, '--mode=sample', '--config.sampling.seeds=0-19']) == 0
  compiled = collections.Counter(re.findall(r'Compiling jit\((\w+)\)', caplog.text))
  ours = {name: n for name, n in compiled.items() if name in PROGRAMS}
  assert ours == PROGRAMS, compiled
