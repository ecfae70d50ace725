"""VGG-16 and LPIPS against the golden file of the PyTorch network."""

from pathlib import Path

import jax
import numpy as np
import pytest

from gdm_jax.evaluation import vgg16
from tests.support.golden_weights import weight

FILE = Path(__file__).parents[1] / 'golden' / 'vgg16.npz'
RNG = np.random.default_rng(0)
A, B = (RNG.integers(0, 256, (2, 28, 33, 3), dtype=np.uint8) for _ in range(2))


def drawn(name, shape):
  """The reference's weights; kernels are [h, w, in, out] here, the linear ones positive."""
  values = weight(name, shape)
  if name.startswith('NetLinLayer'):
    return np.abs(values)
  return values * np.sqrt(np.prod(shape[1:]) / np.prod(shape[:-1])) if len(shape) > 1 else values


@pytest.fixture(scope='module')
def golden():
  with np.load(FILE) as file:
    return dict(file)


@pytest.fixture(scope='module')
def params():
  shapes = vgg16.reference_shapes()
  return vgg16.params_from_reference({n: drawn(n, shape) for n, shape in shapes.items()})


def test_features_match_the_reference(golden, params):
  """Measured: 3e-7 of the tap's largest value."""
  features = jax.jit(vgg16.VGG16().apply)({'params': params}, A)
  assert features.keys() == {'relu1_2', 'relu2_2', 'relu3_3', 'relu4_3', 'relu5_3'}
  for tap, found in features.items():
    expected = golden[f'features_{tap}']
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_lpips_matches_the_reference(golden, params):
  lpips = jax.jit(vgg16.lpips)
  np.testing.assert_allclose(lpips(params, A, B), golden['lpips'], rtol=1e-5)
  np.testing.assert_allclose(lpips(params, B, A), golden['lpips'], rtol=1e-5)
  np.testing.assert_array_equal(lpips(params, A, A), np.zeros(2))


def test_another_network_is_refused(params):
  shapes = vgg16.reference_shapes()
  reference = {n: np.zeros(shape) for n, shape in shapes.items()}
  del reference['NetLinLayer_3.Conv_0.kernel']
  with pytest.raises(ValueError, match=r"'NetLinLayer_3\.Conv_0\.kernel' is missing"):
    vgg16.params_from_reference(reference)
