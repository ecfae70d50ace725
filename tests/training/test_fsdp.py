"""Parameters divided over devices: less memory on each, and the same training."""

import functools
import json

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from configs import cifar10_vanilla
from gdm_jax import build, main
from gdm_jax.runtime import sharding
from gdm_jax.training import step as training_step
from tests.support import runs

WIDE = ('--config.model.ddpmpp.channels=64',)  # some arrays are large enough


def test_a_device_holds_its_part_of_the_state():
  config = cifar10_vanilla.get_config()
  system, optimizer = build.system(config), build.optimizer(config)
  state = jax.eval_shape(functools.partial(training_step.init_state, config, system, optimizer))

  def held(fsdp):
    layout = sharding.fsdp_sharded(AbstractMesh((8 // fsdp, fsdp), ('data', 'fsdp')), state)
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(layout), strict=True)
    return sum(np.prod(where.shard_shape(x.shape)) for x, where in pairs)

  whole = held(1)
  assert whole == sum(x.size for x in jax.tree.leaves(state))
  assert whole / 8 < held(8) < whole / 7.9
  assert whole / 2 < held(2) < whole / 1.99


def test_what_does_not_divide_is_whole():
  mesh = AbstractMesh((2, 4), ('data', 'fsdp'))
  arrays = {'odd': (333, 111), 'small': (64, 64), 'long': (3, 3, 128, 512), 'scalar': ()}
  arrays = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in arrays.items()}
  layout = sharding.fsdp_sharded(mesh, arrays)
  assert {name: tuple(where.spec) for name, where in layout.items() if where.spec} == {
    'long': (None, None, None, 'fsdp')
  }


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run of 8 steps on four devices, each holding everything."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  done = runs.command(*runs.arguments(workdir, *WIDE, steps=8, save_every=4), devices=4)
  assert done.returncode == 0, done.stderr
  return workdir


def test_divided_parameters_train_alike_and_move_both_ways(whole, tmp_path):
  workdir = tmp_path / 'run'

  def train(steps, fsdp):
    arguments = runs.arguments(workdir, *WIDE, steps=steps, save_every=4)
    done = runs.command(*arguments, f'--config.machine.fsdp={fsdp}', devices=4)
    assert done.returncode == 0, done.stderr

  train(4, 4)
  train(6, 1)
  train(8, 2)
  losses = [[row['loss'] for row in runs.metrics(w)] for w in (workdir, whole)]
  assert len(losses[0]) == 8
  np.testing.assert_allclose(*losses, rtol=1e-5)
  assert json.loads((workdir / 'config.json').read_text())['machine']['fsdp'] == 2


def test_a_number_that_does_not_divide_the_devices_is_refused(tmp_path, capsys):
  assert main.main(['', *runs.arguments(tmp_path / 'run', '--config.machine.fsdp=2')]) == 2
  assert 'machine.fsdp = 2 does not divide 1 devices' in capsys.readouterr().err
