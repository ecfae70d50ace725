"""`machine.all_reduce`: the gradients of all devices in one array, of fewer bits if asked."""

import json

import pytest

from gdm_jax import main
from tests.support import runs

KINDS = 'float32-1', 'float32-2', 'bfloat16-1'  # and microbatches

STEPS = """
import json
import re
import jax
import numpy as np
from configs import digits
from gdm_jax import build
from gdm_jax.runtime import sharding
from gdm_jax.training import step as training_step

config = digits.get_config()
config.model.ddpmpp.update(channels=8, attention=(), dropout=0.0)
config.train.batch = 16
rng = np.random.default_rng(0)
batch = {'x': rng.integers(0, 256, (16, 8, 8, 1), np.uint8), 'label': np.zeros(16, np.int32)}
mesh, optimizer = sharding.mesh(), build.optimizer(config)
batch = sharding.shard_batch(batch, mesh)
found = {}
for kind, parts in (('auto', 1), ('float32', 1), ('float32', 2), ('bfloat16', 1)):
  config.machine.update(all_reduce=kind, microbatches=parts)
  system = build.system(config)
  state = jax.device_put(
    training_step.init_state(config, system, optimizer), sharding.replicated(mesh)
  )
  step = training_step.jit_train_step(config, system, optimizer, mesh, state).lower(state, batch)
  sizes = re.findall(r'all_reduce.*?: \\((tensor<\\S+>)\\) ->', step.as_text(), re.DOTALL)
  state, metrics = step.compile()(state, batch)
  gradient = np.concatenate([g.ravel() for g in jax.tree.leaves(state.optimizer[0].mu)])
  norm = float(np.linalg.norm(gradient))
  exact = found['auto-1'][0] if found else gradient
  found[f'{kind}-{parts}'] = gradient, {
    'loss': float(metrics['loss']),
    'error': float(np.linalg.norm(gradient - exact)) / norm,
    'exchanged': sizes,
    'elements': len(gradient),
  }

found = {key: row for key, (_, row) in found.items()}
own = lambda params, key, x: (x.sum(), {'key': jax.random.uniform(key)})
key = jax.random.key(0)
x = jax.device_put(np.arange(16.0, dtype=np.float32), sharding.batch_sharded(mesh))
total, means = jax.jit(sharding.averaged(own, mesh, 'float32'))(0.0, key, x)
found['means'] = {'examples': float(total), 'key': float(means['key'])}
keys = [jax.random.fold_in(key, device) for device in range(4)]
found['expected_key'] = float(np.mean([jax.random.uniform(key) for key in keys]))
print(json.dumps(found))
"""


@pytest.fixture(scope='module')
def steps():
  return json.loads(runs.python('-c', STEPS, devices=4).stdout)


@pytest.mark.parametrize('kind', KINDS)
def test_all_gradients_cross_in_one_array(steps, kind):
  dtype = {'float32': 'f32', 'bfloat16': 'bf16'}[kind[:-2]]
  assert steps[kind]['exchanged'] == [f'tensor<{steps[kind]["elements"]}x{dtype}>', 'tensor<f32>']


def test_the_gradient_is_the_same_but_for_the_bits_that_cross(steps):
  for kind in KINDS:
    assert steps[kind]['loss'] == pytest.approx(steps['auto-1']['loss'], rel=1e-6)
  assert steps['float32-1']['error'] < 1e-5
  assert steps['float32-2']['error'] < 1e-5
  assert 1e-4 < steps['bfloat16-1']['error'] < 2**-8


def test_a_device_has_its_own_examples_and_key(steps):
  """So dropout is another on each."""
  assert steps['means'] == {'examples': 30, 'key': pytest.approx(steps['expected_key'], rel=1e-6)}


def test_divided_parameters_are_refused(tmp_path, capsys):
  overrides = '--config.machine.all_reduce=bfloat16', '--config.machine.fsdp=2'
  assert main.main(['', *runs.arguments(tmp_path / 'run', *overrides)]) == 2
  assert "machine.all_reduce = 'bfloat16' needs whole parameters" in capsys.readouterr().err
