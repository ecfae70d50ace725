"""Winograd's convolutions against direct ones, and where the network takes them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from gdm_jax.models import ddpmpp
from gdm_jax.runtime import winograd
from tests.models.test_ddpmpp import tiny
from tests.support.runs import python


def direct(x, kernel):
  dimensions = 'NHWC', 'HWIO', 'NHWC'
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=dimensions)


def inputs(shape, channels, seed=0):
  """Images, a kernel and a cotangent of their convolution."""
  rng = np.random.default_rng(seed)
  shapes = shape, (3, 3, shape[-1], channels), (*shape[:-1], channels)
  return [rng.normal(size=shape) for shape in shapes]


@functools.partial(jax.jit, static_argnums=0)
def with_gradients(convolve, x, kernel, cotangent):
  """The convolution and its gradients."""
  y, pull = jax.vjp(convolve, x, kernel)
  return y, *pull(cotangent)


@settings(max_examples=15, deadline=None)
@given(
  shape=st.tuples(*[st.integers(1, high) for high in (3, 9, 9, 4)]),
  channels=st.integers(1, 4),
  seed=st.integers(0, 99),
)
def test_is_the_convolution_whatever_the_sides(shape, channels, seed):
  with jax.enable_x64(True):
    arrays = inputs(shape, channels, seed)
    expected = with_gradients(direct, *arrays)
    for found, right in zip(with_gradients(winograd.convolve, *arrays), expected, strict=True):
      np.testing.assert_allclose(found, right, rtol=0, atol=1e-13 * np.abs(right).max())


@pytest.fixture
def in_parts(monkeypatch):
  """A device of one core, and two tiles at a time."""
  monkeypatch.setattr(winograd, '_one_core_each', lambda: True)
  monkeypatch.setattr(winograd, 'TILES', 2)


@pytest.mark.parametrize('shape', [(6, 4, 4, 3), (7, 5, 4, 3), (4, 9, 9, 3), (1, 4, 4, 3)])
def test_some_images_at_a_time_are_the_same(shape, in_parts, float64):
  arrays = inputs(shape, 5)
  expected = with_gradients(direct, *arrays)
  for found, right in zip(with_gradients(winograd.convolve, *arrays), expected, strict=True):
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-13 * np.abs(right).max())


DEVICES = """
import jax
import numpy as np
from gdm_jax.runtime import sharding, winograd
from tests.runtime.test_winograd import direct, inputs, with_gradients

assert len(jax.devices()) == 4
winograd._one_core_each, winograd.TILES = lambda: True, 2
arrays = [array.astype(np.float32) for array in inputs((16, 4, 4, 3), 5)]
expected = with_gradients(direct, *arrays)
images, whole = sharding.batch_sharded(sharding.mesh()), sharding.replicated(sharding.mesh())
x, cotangent = (jax.device_put(array, images) for array in arrays[::2])
kernel = jax.device_put(arrays[1], whole)
program = with_gradients.lower(winograd.convolve, x, kernel, cotangent).compile()
for found, right in zip(program(x, kernel, cotangent), expected, strict=True):
  np.testing.assert_allclose(found, right, rtol=0, atol=1e-5 * np.abs(right).max())
loops, entry = program.as_text().split('\\nENTRY ')
assert ' while(' in entry
print([text.count(' all-reduce(') for text in (loops, entry)])

# Where a program is of one device's images, they are not divided again.
parts = lambda x: np.full(1, winograd._parts(x)[0])
own = jax.shard_map(parts, mesh=images.mesh, in_specs=images.spec, out_specs=images.spec)
print(parts(x), jax.jit(own)(x))
"""


def test_devices_share_nothing_but_the_gradient_of_the_kernel():
  output = python('-c', DEVICES, devices=4).stdout
  assert output.split('\n')[:2] == ['[0, 1]', '[4] [1 1 1 1]']


def test_float32_error_is_small_beside_the_largest_value():
  rounded = [array.astype(np.float32) for array in inputs((8, 16, 16, 256), 64)]
  with jax.enable_x64(True):
    expected = with_gradients(direct, *(array.astype(np.float64) for array in rounded))

  for found, right in zip(with_gradients(winograd.convolve, *rounded), expected, strict=True):
    assert np.abs(found - right).max() < 5e-6 * np.abs(right).max()  # as docs/performance.md says


SHAPE = 9, 16, 16, 128  # 144 tiles


def products(shape, dtype=jnp.float32, channels=128, platform='cpu'):
  """How many convolutions and matrix products the layer is on a platform."""
  module = ddpmpp.conv3x3(channels, dtype, winograd.conv_general_dilated)
  x = jax.ShapeDtypeStruct(shape, dtype)
  params = jax.eval_shape(module.init, jax.random.key(0), x)
  text = jax.jit(module.apply).trace(params, x).lower(lowering_platforms=(platform,)).as_text()
  return text.count('stablehlo.convolution'), text.count('stablehlo.dot_general')


def test_a_cpu_takes_it_and_an_accelerator_does_not():
  assert products(SHAPE) == (0, 1)
  for platform in ('tpu', 'cuda'):
    assert products(SHAPE, platform=platform) == (1, 0)


@pytest.mark.parametrize(
  'options',
  [
    {'shape': (8, 16, 16, 128)},
    {'shape': (7, 16, 16, 256), 'channels': 256},
    {'shape': (9, 16, 16, 127)},
    {'shape': SHAPE, 'channels': 127},
    {'shape': SHAPE, 'dtype': jnp.bfloat16},
  ],
)
def test_what_does_not_pay_stays_direct(options, monkeypatch):
  monkeypatch.setattr(winograd, '_one_core_each', lambda: False)
  assert products(**options) == (1, 0)


def test_devices_of_one_core_take_it_with_fewer_channels(monkeypatch):
  shape, few = (64, 28, 28, 32), {'channels': 32}
  monkeypatch.setattr(winograd, '_one_core_each', lambda: True)
  assert products(shape, **few) == (0, 1)
  assert products((64, 8, 8, 64), channels=64) == (1, 0)  # too few tiles
  monkeypatch.setattr(winograd, '_one_core_each', lambda: False)
  assert products(shape, **few) == (1, 0)


def test_more_precision_than_the_default_is_direct():
  with jax.default_matmul_precision('highest'):
    assert products(SHAPE) == (1, 0)
  with jax.default_matmul_precision('default'):
    assert products(SHAPE) == (0, 1)


@pytest.fixture
def always(monkeypatch):
  """Winograd's algorithm for small images too."""
  monkeypatch.setattr(winograd, 'pays', lambda x, kernel: True)
  assert products((1, 4, 4, 1), channels=1) == (0, 1)


@pytest.fixture
def layer(always):
  """A layer, its parameters and an image."""
  x, kernel, _ = map(jnp.float32, inputs((4, 6, 8, 3), 5))
  params = {'params': {'kernel': kernel, 'bias': jnp.linspace(-1, 1, 5)}}
  return ddpmpp.conv3x3(5, jnp.float32, winograd.conv_general_dilated), params, x


@pytest.mark.parametrize('parts', [(), ('in_parts',)])
def test_every_derivative_of_a_layer_is_right(layer, parts, request):
  """Both modes, a linearisation used twice, and gradients of single examples."""
  module, params, x = layer
  for fixture in parts:
    request.getfixturevalue(fixture)

  def derivatives(module):
    def energy(params, x):
      return jnp.sum(jnp.tanh(module.apply(params, x) / 5))

    y, push = jax.linearize(lambda x: module.apply(params, x), x)
    single = jax.vmap(jax.grad(energy, (0, 1)), (None, 0))(params, x[:, None])
    second = jax.jvp(jax.grad(energy, (0, 1)), (params, x), (params, x))
    return y, push(x), push(-x), single, second

  found, expected = (
    jax.jit(functools.partial(derivatives, m))() for m in (module, nn.Conv(5, (3, 3)))
  )
  for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(f, e, rtol=0, atol=1e-5 * np.abs(e).max())


def test_the_backward_pass_keeps_what_goes_in(layer):
  """At the level of jax: what XLA then finds to be the same, it may keep."""
  module, params, x = layer
  pull = jax.eval_shape(lambda *arguments: jax.vjp(module.apply, *arguments)[1], params, x)
  assert max(leaf.size for leaf in jax.tree.leaves(pull)) == x.size


def test_the_network_has_the_same_gradients(request):
  model, variables, arguments = tiny()

  def gradients(model):
    def energy(variables):
      return jnp.sum(jnp.tanh(model.apply(variables, **arguments)))

    return jax.jit(jax.grad(energy))(variables)

  expected = gradients(model)  # too small for Winograd's algorithm
  request.getfixturevalue('always')
  found = gradients(model.clone(remat='cheap'))
  for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    # Some are zero but for rounding, as a softmax does not change with a constant.
    np.testing.assert_allclose(f, e, rtol=0, atol=1e-5 * np.abs(e).max() + 1e-9)
