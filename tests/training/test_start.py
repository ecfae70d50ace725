"""train.start: the parameters of another model, by name."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from gdm_jax import build, main
from gdm_jax.models import from_edm, naming
from gdm_jax.runtime import exported, sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training import start
from tests.support import edm_pickle, runs
from tests.support.golden_weights import weight

NETWORKS = {
  'ddpmpp': (),
  'mlp': ('--config.model.name=mlp', *runs.TINY_MLP),
  'context_unet': (
    *('--config.model.name=context_unet', '--config.model.context_unet.channels=8'),
    *('--config.model.context_unet.multipliers=1', '--config.model.context_unet.blocks=1'),
    '--config.model.context_unet.denoiser_channels=8',
  ),
  'group_causal': ('--config.model.name=group_causal', '--config.model.group_causal.width=8'),
}


def config_of(workdir, *overrides):
  config = main.parse(['', *runs.arguments(workdir, *overrides)]).config
  return config, build.system(config)


def begin(config, system):
  return start.parameters(config, system, sharding.mesh())


def write_model(folder, *overrides):
  """An export of parameters that are far from their first values; its system and parameters."""
  config, system = config_of('unused', *overrides)
  params = jax.eval_shape(system.predictor.init, jax.random.key(0))
  params = jax.tree_util.tree_map_with_path(
    lambda path, p: np.float32(weight(jax.tree_util.keystr(path), p.shape)), params
  )
  folder.mkdir()
  tensors = naming.to_names(config.model.name, params)
  exported.write_tensors(folder / exported.PARAMETERS, tensors, 'float32')
  tree = config.to_json()[:-1] + ', "about": {"step": 3}}'
  (folder / exported.CONFIG).write_text(tree)
  exported.write_sums(folder)
  return system, params


def predictions(system, params, label):
  """u of fixed points, with or without labels."""
  x = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
  alpha = jnp.full((3, system.process.grouping.num_groups), 0.3)
  label = None if label is None else jnp.array(label)
  return jax.jit(system.predictor)(params, x, alpha, label)


@pytest.mark.parametrize('network', NETWORKS)
def test_with_new_inputs_the_first_prediction_is_the_old_ones(network, tmp_path, capsys):
  options = NETWORKS[network]
  old, params = write_model(tmp_path / 'old', *options)
  here = f'--config.train.start={tmp_path / "old"}', '--config.seed=5'
  config, system = config_of(
    'unused', *options, *here, '--config.model.classes=4', '--config.data.augment=0.1'
  )
  new = begin(config, system)
  expected = predictions(old, params, None)
  assert float(jnp.std(expected)) > 0.03  # far from 0
  for label in (None, [0, 3, -1]):
    np.testing.assert_allclose(predictions(system, new, label), expected, atol=1e-5)
  assert 'new inputs, with weights of zero' in capsys.readouterr().err


@pytest.mark.parametrize('network', NETWORKS)
def test_more_classes_keep_the_predictions_of_the_old_ones(network, tmp_path):
  options = (*NETWORKS[network], '--config.data.augment=0.1')
  old, params = write_model(tmp_path / 'old', *options, '--config.model.classes=4')
  here = f'--config.train.start={tmp_path / "old"}'
  config, system = config_of('unused', *options, here, '--config.model.classes=10')
  new = begin(config, system)
  expected = predictions(old, params, [0, 3, -1])
  np.testing.assert_allclose(predictions(system, new, [0, 3, -1]), expected, atol=1e-5)


def test_maps_of_the_channels_begin_at_zero(tmp_path):
  _, params = write_model(tmp_path / 'old')
  three = '--config.strategies.main.grouping=elements', '--config.strategies.main.groups=1'
  here = f'--config.train.start={tmp_path / "old"}'
  config, system = config_of('unused', *three, here, '--config.sampling.steps=64')
  new = begin(config, system)
  kernel = new['enc_8x8_conv']['kernel']
  np.testing.assert_array_equal(kernel[:, :, :2], params['enc_8x8_conv']['kernel'])


@pytest.mark.parametrize(
  ('old', 'new', 'listed'), [(2, 1, 'there, but not here'), (1, 2, 'so drawn at random')]
)
def test_what_does_not_fit_is_listed(old, new, listed, tmp_path, capsys):
  write_model(tmp_path / 'old', f'--config.model.ddpmpp.blocks={old}')
  here = f'--config.train.start={tmp_path / "old"}', f'--config.model.ddpmpp.blocks={new}'
  params = flatten_dict(begin(*config_of('unused', *here)), sep='/')
  ((line, names),) = re.findall(r'  (.*): (.*)\n', capsys.readouterr().err)
  assert line.endswith(listed)
  assert 'enc_8x8_block1/conv0/kernel' in names.split(', ')
  assert 'enc_8x8_block0/conv0/kernel' not in names.split(', ')
  assert all(np.isfinite(value).all() for value in params.values())


def test_another_network_is_one_line(tmp_path):
  write_model(tmp_path / 'wide', '--config.model.ddpmpp.channels=16')
  write_model(tmp_path / 'mlp', *NETWORKS['mlp'])
  for name, wanted in (('wide', 'holds the parameters of another'), ('mlp', 'model.name = mlp')):
    with pytest.raises(ConfigError, match=wanted) as error:
      begin(*config_of('unused', f'--config.train.start={tmp_path / name}'))
    assert len(str(error.value).splitlines()) == 1


def test_what_is_no_model_writes_nothing(tmp_path, capsys):
  workdir = tmp_path / 'run'
  start_at = f'--config.train.start={tmp_path / "nothing"}'
  assert main.main(['', *runs.arguments(workdir, start_at)]) == 2
  assert 'no such folder, and no model by name' in capsys.readouterr().err
  assert not workdir.exists()


def test_a_run_begins_from_a_workdir_and_resumes_without_it(tmp_path, capsys):
  first, second = tmp_path / 'first', tmp_path / 'second'
  assert main.main(['', *runs.arguments(first, steps=2)]) == 0
  begins = f'--config.train.start={first}', '--config.train.learning_rate=1e-30'
  assert main.main(['', *runs.arguments(second, *begins, steps=2)]) == 0
  assert f'train.start = {first}: step 2 of digits' in capsys.readouterr().err
  config, system = config_of(second, f'--config.train.start={first}')
  expected = jax.tree.leaves(begin(config, system))
  number = len(expected)  # the checkpoint's arrays begin with the EMA
  runs.assert_same_bits(runs.arrays(second, 2)[:number], expected)
  first.rename(tmp_path / 'moved')
  assert main.main(['', *runs.arguments(second, *begins, steps=3)]) == 0
  assert 'resumed from step 2' in capsys.readouterr().err


def test_edms_network_sees_no_levels_at_first(tmp_path):
  config, system = config_of('unused', f'--config.train.start={tmp_path / "edm"}')
  shapes = jax.eval_shape(system.predictor.init, jax.random.key(0))
  weights = {
    name: weight(name, value.shape)
    for name, value in jax.eval_shape(lambda p: naming.to_names('ddpmpp', p), shapes).items()
  }
  weights['enc.8x8_conv.weight'] = weights['enc.8x8_conv.weight'][:, :1]
  (tmp_path / 'a.pkl').write_bytes(edm_pickle.dump(weights))
  from_edm.convert(tmp_path / 'a.pkl', tmp_path / 'edm')
  new = naming.to_names('ddpmpp', begin(config, system))
  assert not new['enc.8x8_conv.weight'][:, 1].any()
  for name, value in weights.items():
    np.testing.assert_array_equal(
      new[name][:, :1] if name == 'enc.8x8_conv.weight' else new[name], value.astype(np.float32)
    )
