"""What the network is shown, by a network that shows it."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax import basis, grouping, sampling
from gdm_jax.conditioning import Predictor
from gdm_jax.models import MLP
from gdm_jax.process import Process

GRID = (4, 4)
PIXELS = Process(grouping.rows(GRID, 2), basis.pixel(GRID))
COSINE = basis.cosine(GRID)
BANDS = Process(grouping.bands(COSINE, (3,)), COSINE)
ALPHA = np.array([[1, 0.5], [0, 0.25], [1, 1]], np.float32)
X = np.random.default_rng(0).normal(size=(3, *GRID, 1)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Recorder:
  """Returns its first channel, and keeps what it was called with."""

  out_channels: int = 1
  num_classes: int = 0
  augment_dim: int = 0
  dtype: type = np.float32
  calls: list = dataclasses.field(default_factory=list)

  def init(self, *args, **kwargs):
    return {'params': {}}

  def apply(self, variables, *args, **kwargs):
    self.calls.append((*args, kwargs))
    return args[0][..., :1]

  def __call__(self, x, noise_label, class_label=None, augment_label=None, train=False):
    raise NotImplementedError


def shown(process, **attributes):
  network = Recorder(**attributes)
  return Predictor(network, process), network.calls


def test_the_levels_are_one_more_channel_and_their_mean_the_noise_label():
  predictor, calls = shown(PIXELS)
  np.testing.assert_array_equal(predictor({}, X, ALPHA), X)
  x, noise, options = calls[0]
  np.testing.assert_array_equal(x[..., :1], X)
  np.testing.assert_array_equal(x[..., 1], ALPHA[:, [0, 0, 1, 1]][:, :, None].repeat(4, 2))
  np.testing.assert_allclose(noise, [250, 875, 0])
  assert options['class_label'] is None
  assert options['augment_label'].shape == (3, 0)  # pixels need no levels besides the map


def test_a_frequency_basis_gives_the_levels_before_the_augmentation():
  predictor, calls = shown(BANDS, augment_dim=2 + 9)
  labels = np.arange(27, dtype=np.float32).reshape(3, 9)
  predictor({}, X, ALPHA)
  predictor({}, X, ALPHA, augment=labels)
  plain, augmented = (call[-1]['augment_label'] for call in calls)
  np.testing.assert_array_equal(plain, np.concatenate([ALPHA, np.zeros((3, 9))], 1))
  np.testing.assert_array_equal(augmented, np.concatenate([ALPHA, labels], 1))


def test_labels_are_one_hot_and_hidden_ones_zero():
  predictor, calls = shown(PIXELS, num_classes=3)
  predictor({}, X, ALPHA, jnp.array([2, -1, 0]))
  np.testing.assert_array_equal(calls[0][-1]['class_label'], [[0, 0, 1], [0, 0, 0], [1, 0, 0]])


def test_in_frequency_space_the_network_sees_coefficients():
  """Eq. 12, 13: u = U u_bar(U^T x_t, A)."""
  predictor, calls = shown(BANDS, augment_dim=2)
  predictor = dataclasses.replace(predictor, space='frequency')
  np.testing.assert_allclose(predictor({}, X, ALPHA), X, atol=1e-6)
  np.testing.assert_allclose(calls[0][0][..., :1], COSINE.analyze(X), atol=1e-6)


@pytest.fixture(scope='module')
def model():
  predictor = Predictor(MLP(out_channels=1, width=8, depth=1, num_classes=3), PIXELS)
  return predictor, predictor.init(jax.random.key(0))


def test_binding_is_calling(model):
  predictor, params = model
  label = jnp.array([0, 2, -1])
  np.testing.assert_array_equal(
    predictor.bind(params, label)(X, ALPHA), predictor(params, X, ALPHA, label)
  )
  np.testing.assert_array_equal(predictor.bind(params)(X, ALPHA), predictor(params, X, ALPHA))


def test_guidance_mixes_with_the_hidden_label(model):
  predictor, params = model
  label = jnp.array([0, 2, 1])
  given, none = predictor(params, X, ALPHA, label), predictor(params, X, ALPHA)
  guided = predictor.bind(params, label, 2.5)(X, ALPHA)
  np.testing.assert_allclose(guided, none + 2.5 * (given - none), atol=1e-5)
  with pytest.raises(ValueError, match='guidance = 2 needs labels'):
    predictor.bind(params, None, 2)


def test_a_predictor_can_be_jitted_and_sampled(model):
  predictor, params = model
  u = jax.jit(predictor)(params, X, ALPHA)
  np.testing.assert_allclose(u, predictor(params, X, ALPHA), atol=1e-6)
  table = jnp.array([[0.0, 0], [1, 0], [1, 1]])
  assert sampling.sample(predictor.bind(params), PIXELS, table, X).shape == X.shape


@pytest.mark.parametrize('process', [PIXELS, BANDS], ids=['pixels', 'bands'])
def test_guidance_of_every_group_acts_on_its_own_elements(process):
  levels = 0 if process is PIXELS else 2
  network = MLP(out_channels=1, num_classes=3, augment_dim=levels, width=16, depth=1)
  predictor = Predictor(network, process)
  params = predictor.init(jax.random.key(0))
  label, scales = jnp.array([0, 2, 1]), np.array([3.0, 0.5])
  found = process.basis.analyze(predictor.bind(params, label, scales)(X, ALPHA))
  for group, scale in enumerate(scales):
    expected = process.basis.analyze(predictor.bind(params, label, scale)(X, ALPHA))
    own = np.asarray(process.grouping.labels) == group
    np.testing.assert_allclose(found[:, own], expected[:, own], atol=1e-5)
  # Equal scales are one scale, and ones are the model as trained.
  both = predictor.bind(params, label, np.array([2.0, 2.0]))(X, ALPHA)
  np.testing.assert_allclose(both, predictor.bind(params, label, 2.0)(X, ALPHA), atol=1e-5)
  ones = predictor.bind(params, label, np.ones(2))(X, ALPHA)
  np.testing.assert_array_equal(ones, predictor.bind(params, label)(X, ALPHA))


@pytest.mark.parametrize(
  ('precision', 'found'),
  [('float32', 'HIGHEST'), ('tensorfloat32', 'HIGH'), ('bfloat16', 'DEFAULT')],
)
def test_products_have_the_precision_that_is_asked_for(precision, found):
  # Parity on a CPU says nothing of it: float32 is narrowed on GPU and TPU alone.
  network = MLP(out_channels=1, width=16, depth=1)
  predictor = Predictor(network, PIXELS, precision=precision)
  params = predictor.init(jax.random.key(0))
  jaxpr = str(jax.make_jaxpr(predictor)(params, X, ALPHA))
  precisions = set(re.findall(r' precision=(.+)', jaxpr))
  assert precisions == {f'(Precision.{found}, Precision.{found})'}
