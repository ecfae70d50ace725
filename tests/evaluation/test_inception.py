"""Inception against the golden file of the reference, and the promises of its docstrings."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax.evaluation.inception import Inception, params_from_reference, resize
from tests.support.golden_weights import weight

FILE = Path(__file__).parents[1] / 'golden' / 'inception_fid.npz'
TAPS = ('64', '192', '768', '2048', 'logits_unbiased')


@pytest.fixture(scope='module')
def golden():
  with np.load(FILE) as file:
    return dict(file)


@pytest.fixture(scope='module')
def reference(golden):
  """The reference's weights."""
  shapes = map(json.loads, golden['parameter_shapes'])
  weights = {n: weight(n, s) for n, s in zip(golden['parameter_names'], shapes, strict=True)}
  return {n: abs(w) + 0.5 if n.endswith('running_var') else w for n, w in weights.items()}


@pytest.fixture(scope='module')
def params(reference):
  return params_from_reference(reference)


@pytest.fixture(scope='module')
def features(golden, params):
  return jax.jit(Inception().apply)({'params': params}, golden['images'])


@pytest.mark.parametrize('tap', TAPS)
def test_matches_reference(golden, features, tap):
  """Measured: 1e-7 to 7e-7 of the tap's largest value."""
  assert features.keys() == set(TAPS)
  expected = golden[f'features_{tap}']
  assert features[tap].dtype == jnp.float32
  np.testing.assert_allclose(features[tap], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_nothing_is_multiplied_in_less_than_float32(golden, params):
  # Parity on a CPU says nothing of it: float32 is narrowed on GPU and TPU alone.
  jaxpr = str(jax.make_jaxpr(Inception().apply)({'params': params}, golden['images']))
  products = re.findall(r'= (?:conv_general_dilated|dot_general)\[', jaxpr)
  precisions = re.findall(r' precision=(.+)', jaxpr)
  assert len(products) == 94 + 1
  assert len(precisions) == len(products)
  assert set(precisions) == {'(Precision.HIGHEST, Precision.HIGHEST)'}


def test_reference_parameters_are_the_tree_of_init(golden, params):
  made = jax.eval_shape(Inception().init, jax.random.key(0), golden['images'])['params']
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, made)
  assert {p.dtype for p in jax.tree.leaves(params)} == {np.dtype('float32')}


def test_counters_of_batch_norm_are_ignored(reference, params):
  counter = {'Conv2d_1a_3x3.bn.num_batches_tracked': np.int64(7)}
  jax.tree.map(np.testing.assert_array_equal, params_from_reference(reference | counter), params)


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('Mixed_6c.branch7x7_2.conv.weight', np.zeros((160, 160, 7, 1))),
    ('Mixed_6c.branch7x7_2.bn.running_var', None),
    ('fc.weight', np.zeros((1000, 2048))),
    ('AuxLogits.fc.bias', np.zeros(1000)),
  ],
)
def test_another_network_is_refused(reference, name, value):
  weights = {n: w for n, w in (reference | {name: value}).items() if w is not None}
  with pytest.raises(ValueError, match=re.escape(repr(name))):
    params_from_reference(weights)


def resized_by_hand(x, size):
  """TensorFlow 1's formula, pixel by pixel."""
  old_h, old_w = x.shape[:2]
  out = np.zeros((size, size, *x.shape[2:]))
  for i in range(size):
    for j in range(size):
      y, z = i * old_h / size, j * old_w / size
      top, left = int(y), int(z)
      bottom, right = min(top + 1, old_h - 1), min(left + 1, old_w - 1)
      y, z = y - top, z - left
      out[i, j] = (1 - y) * ((1 - z) * x[top, left] + z * x[top, right]) + y * (
        (1 - z) * x[bottom, left] + z * x[bottom, right]
      )
  return out


@pytest.mark.parametrize(('shape', 'size'), [((6, 4, 3), 11), ((32, 29, 1), 13)])
def test_resize_is_tensorflows(shape, size):
  x = np.random.default_rng(0).uniform(0, 255, shape)
  actual = resize(jnp.float32(x)[None], size)[0]
  np.testing.assert_allclose(actual, resized_by_hand(x, size), atol=1e-4)
  # The usual resize has its pixels' centres at halves, and smooths what it makes smaller.
  usual = jax.image.resize(x, actual.shape, 'bilinear')
  assert np.abs(actual - usual).max() > 10


def test_resize_leaves_an_image_of_its_size_alone():
  x = np.random.default_rng(0).integers(0, 256, (1, 299, 299, 1)).astype(np.float32)
  np.testing.assert_array_equal(resize(x), x)
