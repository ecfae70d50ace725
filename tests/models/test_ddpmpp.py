"""DDPM++ against the golden files of the reference, and the promises of its docstrings."""

import json
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from gdm_jax.models.ddpmpp import DDPMPP, Block, GroupNorm, drop, params_from_reference
from tests.support.golden_weights import weight

DATA = Path(__file__).parents[1] / 'golden'
# These networks compile for longer than they run.
jit = partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})


def golden(name):
  """The file's arrays, its network's options and the reference's weights."""
  with np.load(DATA / f'ddpmpp_{name}.npz') as file:
    data = dict(file)
  config = json.loads(str(data['config']))
  options = {
    'out_channels': config['out_channels'],
    'channels': config['model_channels'],
    'multipliers': tuple(config['channel_mult']),
    'blocks': config['num_blocks'],
    'attention': tuple(config['attn_resolutions']),
    'dropout': config['dropout'],
    'num_classes': config.get('label_dim', 0),
    'augment_dim': config.get('augment_dim', 0),
  }
  shapes = [json.loads(shape) for shape in data['parameter_shapes']]
  names = data['parameter_names'].tolist()
  return data, options, {n: weight(n, s) for n, s in zip(names, shapes, strict=True)}


def labels(data):
  return {key: data[key] for key in ('class_label', 'augment_label') if key in data}


def tiny(shape=(2, 8, 8, 3), **options):
  """A network of two levels and every kind of layer, with its inputs and random parameters."""
  options = {'channels': 8, 'multipliers': (1, 2), 'blocks': 1, 'attention': (4,)} | options
  model = DDPMPP(2, num_classes=3, augment_dim=2, dropout=0.5, **options)
  inputs = {
    'x': jax.random.normal(jax.random.key(0), shape),
    'noise_label': jnp.array([10.0, 700.0]),
    'class_label': jnp.zeros((2, 3)),
    'augment_label': jnp.zeros((2, 2)),
  }
  params = jax.eval_shape(model.init, jax.random.key(0), **inputs)['params']
  rng = np.random.default_rng(0)
  # The initial weights before every sum are tiny and would hide a difference.
  params = jax.tree.map(
    lambda p: (rng.normal(size=p.shape) / np.sqrt(p.size / p.shape[-1])).astype(p.dtype), params
  )
  return model, {'params': params}, inputs


@pytest.fixture(scope='module')
def network():
  """The tiny network, its variables, inputs, and a forward pass that compiles once."""
  model, variables, inputs = tiny()
  compiled = jit(model.apply)
  return model, variables, inputs, lambda **changed: compiled(variables, **(inputs | changed))


@pytest.mark.parametrize('name', ['small', 'conditional'])
def test_matches_reference_in_float64(name):
  data, options, weights = golden(name)
  with jax.enable_x64(True):
    model = DDPMPP(**options, dtype=jnp.float64)
    params = params_from_reference(weights)

    def energy(x):
      y = model.apply({'params': params}, x, data['noise_label'], **labels(data))
      return (y**2).sum(), y

    dx, y = map(np.asarray, jit(jax.grad(energy, has_aux=True))(data['x']))
  for actual, expected in ((y, data['y']), (dx, data['dx'])):
    # The reference rounds its attention and its frequencies to float32 whatever the input.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize('dtype', [jnp.float64, jnp.float32])
def test_float64_inputs_are_never_rounded(dtype):
  data, options, weights = golden('conditional')
  with jax.enable_x64(True):
    jaxpr = jax.make_jaxpr(DDPMPP(**options, dtype=dtype).apply)(
      {'params': params_from_reference(weights)}, data['x'], data['noise_label'], **labels(data)
    )
  assert not re.search(r'\b(f32|bf16|f16)\b', str(jaxpr))


def test_matches_reference_in_float32():
  data, options, weights = golden('conditional')
  params = jax.tree.map(jnp.float32, params_from_reference(weights))
  inputs = {k: jnp.float32(v) for k, v in labels(data).items()}
  y = jit(DDPMPP(**options).apply)(
    {'params': params}, jnp.float32(data['x']), jnp.float32(data['noise_label']), **inputs
  )
  np.testing.assert_allclose(y, data['y'], rtol=0, atol=1e-4 * np.abs(data['y']).max())


@pytest.mark.parametrize('name', ['small', 'conditional'])
@pytest.mark.parametrize('prefix', ['', 'model.'])
def test_reference_parameters_are_the_tree_of_init(name, prefix):
  data, options, weights = golden(name)
  weights = {prefix + key: value for key, value in weights.items()}
  weights[f'{prefix}enc.8x8_down.conv0.resample_filter'] = np.ones((1, 1, 2, 2))
  loaded = params_from_reference(weights)
  args = jnp.float32(data['x']), jnp.float32(data['noise_label'])
  made = jax.eval_shape(DDPMPP(**options).init, jax.random.key(0), *args)['params']
  assert jax.tree.map(jnp.shape, loaded) == jax.tree.map(jnp.shape, made)
  assert {p.dtype for p in jax.tree.leaves(made)} == {jnp.dtype('float32')}
  assert {p.dtype for p in jax.tree.leaves(loaded)} == {np.dtype('float64')}


@pytest.mark.parametrize(
  'name',
  ['enc.16x16_block0.conv2.weight', 'enc.16x16_conv.mean', 'map_layer2.bias', 'enc.16x16_block0'],
)
def test_unknown_reference_name_is_refused(name):
  with pytest.raises(ValueError, match=re.escape(name)):
    params_from_reference({name: np.zeros(3)})


def test_default_network_has_the_published_number_of_parameters():
  x, noise_label = jnp.zeros((1, 32, 32, 4)), jnp.zeros(1)
  params = jax.eval_shape(DDPMPP(3).init, jax.random.key(0), x, noise_label)['params']
  assert round(sum(p.size for p in jax.tree.leaves(params)) / 1e6, 1) == 55.7


def test_initial_weights_follow_the_reference():
  block = Block(64, dropout=0.0, dtype=jnp.float32, attention=True)
  init = jit(partial(block.init, train=False))
  params = init(jax.random.key(1), jnp.zeros((1, 2, 2, 32)), jnp.zeros((1, 128)))['params']
  # A uniform distribution's bound is the square root of 6 * gain**2 / (fan in + fan out).
  bounds = {
    'conv0': np.sqrt(6 / (9 * 32 + 9 * 64)),
    'affine': np.sqrt(6 / (128 + 64)),
    'conv1': 1e-5 * np.sqrt(6 / (9 * 64 + 9 * 64)),
    'skip': np.sqrt(6 / (32 + 64)),
    'qkv': np.sqrt(0.2) * np.sqrt(6 / (64 + 192)),
    'proj': 1e-5 * np.sqrt(6 / (64 + 64)),
  }
  for name, bound in bounds.items():
    assert 0.97 * bound < np.abs(params[name]['kernel']).max() <= bound * (1 + 1e-6), name
  assert not any(layer['bias'].any() for layer in params.values())


def test_group_norm_is_flax_group_norm():
  x = 3 + jax.random.normal(jax.random.key(0), (2, 4, 6, 24))
  params = {'scale': jnp.linspace(0.5, 2, 24), 'bias': jnp.linspace(-1, 1, 24)}
  expected = nn.GroupNorm(num_groups=6, epsilon=1e-6).apply({'params': params}, x)
  np.testing.assert_allclose(GroupNorm().apply({'params': params}, x), expected, atol=1e-5)


def test_bfloat16_is_close_to_float32(network):
  model, variables, inputs, forward = network
  half = model.clone(dtype=jnp.bfloat16)
  made = jax.eval_shape(half.init, jax.random.key(0), **inputs)['params']
  assert {p.dtype for p in jax.tree.leaves(made)} == {jnp.dtype('float32')}
  exact, rounded = forward(), jit(half.apply)(variables, **inputs)
  assert rounded.dtype == jnp.float32
  assert 0 < np.linalg.norm(rounded - exact) / np.linalg.norm(exact) < 0.03


def test_dropout_acts_in_training_alone(network):
  model, variables, inputs, forward = network

  @jit
  def training(key):
    return model.apply(variables, **inputs, train=True, rngs={'dropout': key})

  first, again, other = (training(jax.random.key(seed)) for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-2
  assert np.abs(first - forward()).max() > 1e-2


@pytest.mark.parametrize(('probability', 'height'), [(0.13, 64), (0.5, 63), (0.9, 1)])
@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float32])
def test_dropout_keeps_the_mean_and_each_decision_is_its_own(probability, height, dtype):
  x = jnp.ones((16, height, 64, 32), dtype)
  y = drop(jax.random.key(0), x, probability)
  assert y.dtype == dtype
  dropped = np.asarray(y == 0, np.float64)
  np.testing.assert_allclose(y[y != 0].astype(float), 1 / (1 - probability), rtol=0.01)

  def within(mean, variance, count):
    assert abs(mean) < 5 * np.sqrt(variance / count), mean

  variance = probability * (1 - probability)
  within(dropped.mean() - probability, variance, dropped.size)
  centred = dropped - probability
  # The two that share a random word are half a height apart.
  for shift, axis in [(1, 0), (1, 2), (1, 3), *[(-(-height // 2), 1)] * (height > 1)]:
    products = centred * np.roll(centred, shift, axis)
    within(products.mean(), variance**2, products.size)


def test_dropout_of_almost_all_divides_by_no_zero():
  assert np.isfinite(drop(jax.random.key(0), jnp.ones((8, 64, 64, 8)), 0.999999)).all()


@pytest.mark.parametrize('label', ['class_label', 'augment_label'])
def test_labels_change_the_output_of_their_example(network, label):
  *_, inputs, forward = network
  plain, changed = forward(), forward(**{label: inputs[label].at[0, 1].set(1)})
  assert np.abs(changed[0] - plain[0]).max() > 1e-3
  np.testing.assert_allclose(changed[1], plain[1], atol=1e-5)


def test_no_label_is_a_label_of_zeros(network):
  *_, forward = network
  none = forward(class_label=None, augment_label=None)
  np.testing.assert_allclose(none, forward(), atol=1e-5)


def test_label_of_another_width_is_refused(network):
  model, variables, inputs, _ = network
  inputs = inputs | {'class_label': jnp.zeros((2, 4))}
  with pytest.raises(ValueError, match=r'class_label has shape \(2, 4\)'):
    jax.eval_shape(model.apply, variables, **inputs)


def test_image_may_be_oblong():
  model, variables, inputs = tiny(shape=(2, 8, 12, 3), attention=(6,))
  y = jit(model.apply)(variables, **inputs)
  assert y.shape == (2, 8, 12, 2)
  assert np.isfinite(y).all()
  # The longer side decides: 4x6 is resolution 6.
  assert 'qkv' in variables['params']['enc_4x6_block0']
  assert 'qkv' not in variables['params']['enc_8x12_block0']


def test_size_must_be_divisible():
  model = DDPMPP(1, channels=8, multipliers=(1, 1, 1), blocks=1)
  with pytest.raises(ValueError, match=r'8x10.*divisible by 4'):
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 10, 1)), jnp.zeros(1))


def test_channels_must_split_into_groups():
  with pytest.raises(ValueError, match='18 channels'):
    jax.eval_shape(GroupNorm().init, jax.random.key(0), jnp.zeros((1, 2, 2, 18)))
