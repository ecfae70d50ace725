"""Augmentation against exact transforms of images and of a Gaussian's moments."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default, digits_frequency
from gdm_jax import build, main
from gdm_jax.config import MODEL, RUN
from gdm_jax.data import augment as module_of_augment
from gdm_jax.data.augment import LABELS, augment, warp
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training import step as training_step
from gdm_jax.training import workdir
from tests.support import runs

KEY = jax.random.key(5)
warp = jax.jit(warp)
augment = jax.jit(augment)


def noise(*shape):
  return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def smooth(height, width):
  """An image of a few waves, in [-1, 1]."""
  y, x = np.mgrid[:height, :width] / 32
  waves = [np.sin(5 * x + 3 * y), np.cos(7 * y - 2 * x), np.sin(6 * x * y)]
  return np.stack(waves, -1)[None].astype(np.float32)


def source(linear, offset=(0, 0)):
  return np.column_stack([linear, offset])[None].astype(np.float32)


def turn(angle):
  return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def moments(images):
  """Mass, mean and covariance of images [b, n, n, 1] in pixels from the centre, (x, y)."""
  n = images.shape[1]
  places = np.stack(np.meshgrid(*2 * [np.arange(n) - (n - 1) / 2]), -1).reshape(-1, 2)
  weights = np.asarray(images, np.float64).reshape(len(images), -1)
  mass = weights.sum(1)
  weights = weights / mass[:, None]
  mean = weights @ places
  second = np.einsum('bn,ni,nj->bij', weights, places, places)
  return mass, mean, second - mean[:, :, None] * mean[:, None]


def gaussian(mean, covariance, n=64):
  """A blob of maximum 1, [1, n, n, 1]."""
  d = np.stack(np.meshgrid(*2 * [np.arange(n) - (n - 1) / 2]), -1) - mean
  square = np.einsum('yxi,ij,yxj->yx', d, np.linalg.inv(covariance), d)
  return np.exp(-square / 2)[None, :, :, None].astype(np.float32)


def test_probability_0_does_nothing():
  x = noise(64, 6, 8, 1)
  found, labels = augment(KEY, x, 0.0)
  assert np.asarray(found).tobytes() == x.tobytes()
  np.testing.assert_array_equal(labels, np.zeros((64, len(LABELS))))


def test_flips_alone_are_exact():
  x = noise(512, 6, 8, 3)
  found, labels = map(np.asarray, augment(KEY, x, 0.3))
  alone, kinds = ~labels[:, 2:].any(1), set()
  for before, after, (across, down) in zip(x[alone], found[alone], labels[alone, :2], strict=True):
    kinds.add((across, down))
    before = before[:, ::-1] if across else before
    assert after.tobytes() == (before[::-1] if down else before).tobytes()
  assert len(kinds) == 4
  assert not (found == x)[~alone].all((1, 2, 3)).any()


def test_the_identity_of_noise_and_of_a_constant():
  x = noise(1, 12, 16, 3)
  np.testing.assert_allclose(warp(x, source(np.eye(2))), x, atol=1e-4)
  constant = jnp.full((1, 12, 16, 3), 0.7)
  moved = warp(constant, source(0.6 * turn(1), (9, -30)))
  np.testing.assert_allclose(moved, constant, atol=1e-6)


@pytest.mark.parametrize('quarters', [1, 2, 3])
def test_a_quarter_turn_is_rot90(quarters):
  x = noise(1, 16, 16, 3)
  found = warp(x, source(turn(quarters * np.pi / 2)))
  np.testing.assert_allclose(found, np.rot90(x, quarters, axes=(1, 2)), atol=2e-4)


def test_a_shift_by_pixels_rolls_and_mirrors_the_outside():
  x, (across, down) = noise(1, 12, 16, 3), (5, -20)
  found = warp(x, source(np.eye(2), (-across, -down)))
  around = np.pad(x, ((0, 0), (40, 40), (40, 40), (0, 0)), 'reflect')
  wanted = np.roll(around, (down, across), (1, 2))[:, 40:-40, 40:-40]
  np.testing.assert_allclose(found, wanted, atol=1e-4)
  near = warp(x, source(np.eye(2), (-3, 0)))
  np.testing.assert_allclose(near[:, :, 3:], np.roll(x, 3, 2)[:, :, 3:], atol=1e-4)


def test_a_map_and_its_inverse_return_a_smooth_image():
  x = smooth(32, 32)
  linear, offset = 0.9 * turn(0.7) @ np.diag([1.1, 1 / 1.1]), np.array([1.3, -0.4])
  there = warp(x, source(linear, offset))
  inverse = np.linalg.inv(linear)
  back = warp(there, source(inverse, -inverse @ offset))
  inside = np.s_[:, 10:-10, 10:-10]  # elsewhere the way led over the mirrored outside
  np.testing.assert_allclose(back[inside], x[inside], atol=0.01)


@pytest.mark.parametrize('scale', [0.7, 1, 1.5])
def test_a_blob_grows_by_the_scale(scale):
  x = gaussian((0, 0), 9 * np.eye(2))
  mass, _, covariance = moments(warp(x, source(np.eye(2) / scale)))
  np.testing.assert_allclose(covariance[0], 9 * scale**2 * np.eye(2), atol=0.1)
  np.testing.assert_allclose(mass, 18 * np.pi * scale**2, rtol=0.01)


def test_what_would_alias_is_smoothed():
  stripes = np.broadcast_to((-1.0) ** np.arange(32, dtype=np.float32), (1, 32, 32))[..., None]
  assert np.abs(warp(stripes, source(1.7 * np.eye(2)))).max() < 0.15


def test_labels_describe_the_transform():
  mean, covariance = np.array([4, 2]), np.array([[18, 4], [4, 9]])
  x = np.repeat(gaussian(mean, covariance), 32, 0)
  for image, label in zip(*map(np.asarray, augment(KEY, x, 1.0)), strict=True):
    across, down, scale, cos, sin, *along, to_x, to_y = label.astype(np.float64)
    errors = []
    for sign in (1, -1):  # which the labels leave open
      frame, growth = turn(-np.arctan2(*along[::-1])), 2 ** (0.2 * sign * np.hypot(*along))
      linear = frame @ np.diag([growth, 1 / growth]) @ frame.T @ turn(-np.arctan2(sin, cos + 1))
      linear = 2 ** (0.2 * scale) * linear @ np.diag([1 - 2 * across, 1 - 2 * down])
      wanted = gaussian(linear @ mean + [8 * to_x, 8 * to_y], linear @ covariance @ linear.T)[0]
      errors.append(np.max(wanted * np.abs(wanted - image)))  # mirrored ones are elsewhere
    assert min(errors) < 0.01


def edm_inverse(scale, angle, stretch, direction, shift_x, shift_y, width, height):
  """EDM's `G_inv`, as its code multiplies it, in float64 (Karras et al. 2022, Appendix F.2)."""

  def rotate(t):
    return np.array([[np.cos(t), np.sin(-t), 0], [np.sin(t), np.cos(t), 0], [0, 0, 1]])

  s, a = 2 ** (0.2 * scale), 2 ** (0.2 * stretch)
  inverse = np.diag([1 / s, 1 / s, 1]) @ rotate(angle)  # rotate2d_inv(-w)
  inverse = inverse @ rotate(-direction) @ np.diag([1 / a, a, 1]) @ rotate(direction)
  move = np.eye(3)
  move[:2, 2] = -shift_x * width * 0.125, -shift_y * height * 0.125
  return (inverse @ move)[:2]


def test_transforms_are_those_of_edm():
  x = np.zeros((256, 24, 32, 1), np.float32)
  drawn = {}

  def keep(x, source):
    drawn['source'] = source
    return x

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(module_of_augment, 'warp', keep)
    _, labels = module_of_augment.augment(KEY, x, 0.7)
  for source, label in zip(drawn['source'], np.asarray(labels, np.float64), strict=True):
    _, _, scale, cos, sin, *along, to_x, to_y = label
    angle = np.arctan2(sin, cos + 1)
    direction, stretch = np.arctan2(*along[::-1]), np.hypot(*along)
    errors = [
      # (stretch, direction) and (-stretch, direction + pi) share labels.
      np.abs(edm_inverse(scale, angle, w, r, to_x, to_y, 32, 24) - source).max()
      for w, r in ((stretch, direction), (-stretch, direction + np.pi))
    ]
    assert min(errors) < 3e-6 * np.abs(source).max()


def test_frequencies_and_variances():
  count, p = 4000, 0.12
  _, labels = augment(KEY, np.zeros((count, 2, 2, 1), np.float32), p)
  labels = np.asarray(labels, np.float64)
  drawn = np.stack(
    [*(labels[:, :3] != 0).T, *(labels[:, i : i + 2].any(1) for i in (3, 5, 7))], axis=1
  )
  wanted = np.array([1 / 2, p / 2, p, p, p, p])
  assert (np.abs(drawn.mean(0) - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / count)).all()
  correlation = np.corrcoef(drawn.T) - np.eye(6)
  assert np.abs(correlation).max() < 4 / np.sqrt(count)
  size, angle, along, shift = (drawn[:, i] for i in range(2, 6))
  assert (labels[~size, 2] == 0).all()
  for normal in (labels[size, 2], *labels[shift, 7:].T):
    n = len(normal)
    assert abs(normal.mean()) < 4 / np.sqrt(n)
    assert abs(normal.var() - 1) < 4 * np.sqrt(2 / n)
  stretch = labels[along, 5:7]
  np.testing.assert_allclose((stretch**2).sum(1).mean(), 1, atol=4 * np.sqrt(2 / len(stretch)))
  axis = stretch[:, 1] == 0  # EDM turns the frame of half of the stretches
  assert abs(axis.mean() - 1 / 2) < 4 / np.sqrt(4 * len(axis))
  turned = stretch[~axis]
  quadrants = np.histogram(np.arctan2(*turned.T), 4, (-np.pi, np.pi))[0] / len(turned)
  np.testing.assert_allclose(quadrants, 1 / 4, atol=4 * np.sqrt(3 / 16 / len(turned)))
  cos, sin = labels[angle, 3] + 1, labels[angle, 4]
  np.testing.assert_allclose(cos**2 + sin**2, 1, atol=1e-5)
  quadrants = np.histogram(np.arctan2(sin, cos), 4, (-np.pi, np.pi))[0] / len(cos)
  np.testing.assert_allclose(quadrants, 1 / 4, atol=4 * np.sqrt(3 / 16 / len(cos)))


def test_an_image_does_not_depend_on_the_others():
  x = noise(8, 6, 8, 1)
  others = np.concatenate([x[:1], noise(7, 6, 8, 1)])
  (one, labels), (two, again) = augment(KEY, x, 1.0), augment(KEY, others, 1.0)
  np.testing.assert_array_equal(labels, again)
  np.testing.assert_allclose(one[0], two[0], atol=1e-6)
  assert len(np.unique(labels[:, 2])) == 8
  assert (augment(jax.random.key(6), x, 1.0)[1] != labels).any(1).all()


def test_the_older_streams_keep_their_keys():
  keys = training_step.random_keys(3, jnp.int32(7))
  step_key = jax.random.fold_in(jax.random.key(3), 7)
  older = jax.random.split(step_key, 6)
  for name, key in zip(('init', 'time', 'order', 'latent', 'dropout', 'label'), older, strict=True):
    assert keys[name] == key


def tiny(module=default, **data):
  config = module.get_config()
  config.data.update(**data)
  config.model.ddpmpp.update(channels=8, multipliers=(1,), blocks=1, attention=())
  return config


@pytest.mark.parametrize(('module', 'levels'), [(default, 0), (digits_frequency, 4)])
def test_the_labels_widen_the_network(module, levels):
  params = jax.eval_shape(build.system(tiny(module, augment=0.12)).predictor.init, KEY)
  assert params['map_augment']['kernel'].shape == (levels + len(LABELS), 8)


def test_the_network_takes_the_labels_beside_the_levels():
  system = build.system(tiny(digits_frequency, augment=0.12))
  params, x, alpha = jax.jit(system.predictor.init)(KEY), noise(2, 8, 8, 1), jnp.full((2, 4), 0.5)
  predict = jax.jit(system.predictor)
  zeros, ones = (predict(params, x, alpha, augment=jnp.full((2, 9), n)) for n in (0.0, 1.0))
  assert (zeros != ones).any()
  np.testing.assert_allclose(predict(params, x, alpha), zeros, atol=1e-7)
  with pytest.raises(ValueError, match='augment_label has shape'):
    build.system(tiny(digits_frequency)).predictor(params, x, alpha, augment=jnp.zeros((2, 9)))


def test_a_run_trains_and_samples(tmp_path):
  workdir = tmp_path / 'run'
  args = runs.arguments(workdir, steps=2)
  assert main.main(['', *args, '--config.data.augment=0.12']) == 0
  assert main.main(['', *args, '--mode=sample', '--config.sampling.seeds=0-3']) == 0
  assert len(list((workdir / 'samples').glob('0*.png'))) == 4
  assert json.loads((workdir / 'config.json').read_text())['data']['augment'] == 0.12


def test_a_workdir_says_how_its_network_was_trained(tmp_path):
  config = tiny(flip=True)  # as the config file has it, which was trained with other values
  (tmp_path / 'config.json').write_text(tiny(augment=0.12).to_json())
  workdir.adopt_config(config, tmp_path, ())
  assert build.system(config).predictor.network.augment_dim == len(LABELS)


def test_a_workdir_without_the_key_is_one_without_augmentation(tmp_path):
  old, config = json.loads(tiny().to_json()), tiny()
  del old['data']['augment']
  (tmp_path / 'config.json').write_text(json.dumps(old))
  workdir.adopt_config(config, tmp_path, ())
  assert config.data.augment == 0
  workdir.check_unchanged(config, tmp_path, MODEL + RUN)
  workdir.check_unchanged(config, tmp_path, MODEL)


@pytest.mark.parametrize(
  ('data', 'network', 'message'),
  [
    ({'augment': 1.5}, 'ddpmpp', 'data.augment = 1.5 is a probability: must be at most 1'),
    ({'augment': -0.1}, 'ddpmpp', 'data.augment = -0.1 must be positive or 0'),
    ({'augment': 0.1, 'flip': True}, 'ddpmpp', 'data.flip must be False'),
    ({'augment': 0.1, 'shape': (2, 1)}, 'ddpmpp', r'needs images, not data.shape = \(2, 1\)'),
  ],
)
def test_refuses(data, network, message):
  config = tiny(**data)
  config.model.name = network
  with pytest.raises(ConfigError, match=message):
    build.system(config)
