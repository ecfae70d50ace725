"""VGG-19 against the golden file of the reference, and the promises of its docstrings."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax.evaluation.vgg import VGG19, params_from_reference
from tests.support.golden_weights import weight

FILE = Path(__file__).parents[1] / 'golden' / 'vgg19.npz'
TAPS = ('relu1_2', 'relu2_2', 'relu3_4', 'relu4_4', 'relu5_4')


@pytest.fixture(scope='module')
def golden():
  with np.load(FILE) as file:
    return dict(file)


@pytest.fixture(scope='module')
def reference(golden):
  """The reference's weights."""
  shapes = map(json.loads, golden['parameter_shapes'])
  return {n: weight(n, s) for n, s in zip(golden['parameter_names'], shapes, strict=True)}


@pytest.fixture(scope='module')
def params(reference):
  return params_from_reference(reference)


@pytest.fixture(scope='module')
def features(golden, params):
  return jax.jit(VGG19().apply)({'params': params}, golden['images'])


@pytest.mark.parametrize('tap', TAPS)
def test_matches_reference(golden, features, tap):
  """Measured: 1e-7 to 2e-7 of the tap's largest value."""
  assert features.keys() == set(TAPS)
  expected = golden[f'features_{tap}']
  assert features[tap].dtype == jnp.float32
  # The two images' last features differ by no more than a thousandth.
  np.testing.assert_allclose(features[tap], expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_nothing_is_multiplied_in_less_than_float32(golden, params):
  # Parity on a CPU says nothing of it: float32 is narrowed on GPU and TPU alone.
  jaxpr = str(jax.make_jaxpr(VGG19().apply)({'params': params}, golden['images']))
  precisions = re.findall(r' precision=(.+)', jaxpr)
  assert precisions == ['(Precision.HIGHEST, Precision.HIGHEST)'] * 16


def test_reference_parameters_are_the_tree_of_init(golden, params):
  made = jax.eval_shape(VGG19().init, jax.random.key(0), golden['images'])['params']
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, made)
  assert {p.dtype for p in jax.tree.leaves(params)} == {np.dtype('float32')}


def test_the_classifier_is_ignored(reference, params):
  classifier = {'classifier.0.bias': np.zeros(4096)}
  jax.tree.map(np.testing.assert_array_equal, params_from_reference(reference | classifier), params)


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('features.34.weight', np.zeros((512, 256, 3, 3))),
    ('features.34.bias', None),
    ('features.1.running_mean', np.zeros(64)),
  ],
)
def test_another_network_is_refused(reference, name, value):
  weights = {n: w for n, w in (reference | {name: value}).items() if w is not None}
  with pytest.raises(ValueError, match=re.escape(repr(name))):
    params_from_reference(weights)


def test_images_too_small_for_five_blocks_are_refused(params):
  with pytest.raises(ValueError, match=r'15x32.*16x16'):
    jax.eval_shape(VGG19().apply, {'params': params}, np.zeros((1, 15, 32, 3), np.uint8))
