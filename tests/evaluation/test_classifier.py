"""The classifier's distance is small for digits that are new to it, and grows as they spoil."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from gdm_jax import main
from gdm_jax.data import sources, units
from gdm_jax.evaluation import classifier, distances, features
from tests.support import runs

IMAGES = 6_400  # a tenth of what a user's classifier sees: a second
TRAIN, TEST = 'train[:80%]', 'train[80%:]'


def digits(split):
  return sources.load('digits', split, (8, 8, 1))


def find(folder):
  """The classifier's features; it is trained unless the folder has it."""
  args = (f'--config={runs.ROOT}/configs/digits.py', f'--config.data.split={TRAIN}')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(classifier, 'IMAGES', IMAGES)
    return features.load_features(main.parse(['', *args])[0], pathlib.Path(folder))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """The features, trained by a process whose programs are compiled well; here it takes long."""
  folder = tmp_path_factory.mktemp('classifier')
  code = f'from tests.evaluation import test_classifier; test_classifier.find({str(folder)!r})'
  env = runs.environment(XLA_FLAGS='')
  subprocess.run([sys.executable, '-c', code], cwd=runs.ROOT, env=env, check=True)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(classifier, 'train', None)
    return find(folder)


@pytest.fixture(scope='module')
def distance(trained):
  """FD (classifier) of images to those for training, as a function of the images."""
  apply = jax.jit(trained.apply)

  def moments(x):
    values = np.asarray(apply(trained.params, units.to_uint8(x)), np.float64)
    return values.mean(0), np.cov(values, rowvar=False)

  real = moments(digits(TRAIN).x)
  return lambda x: distances.frechet(*moments(x), *real)


def test_it_reads_digits_that_it_has_not_seen(trained):
  test = digits(TEST)
  logits = classifier.Classifier(10).apply({'params': trained.params}, units.to_uint8(test.x))[1]
  assert np.mean(np.argmax(logits, 1) == test.label) > 0.8


def test_the_distance_grows_with_noise(distance):
  x = digits(TEST).x
  noise = np.random.default_rng(0).normal(size=x.shape)
  found = [distance(x + strength * noise) for strength in (0, 0.1, 0.2, 0.4, 0.8, 1.6)]
  assert (np.diff(found) > 0.05 * found[0]).all()
  assert found[-1] > 10 * found[0]


def blurred(x):
  """Smoothed by (1, 2, 1) / 4 along both axes."""
  smooth = (2 * np.eye(8) + np.eye(8, k=1) + np.eye(8, k=-1)) / 4
  smooth /= smooth.sum(1, keepdims=True)
  return np.einsum('ij,kl,njlc->nikc', smooth, smooth, x)


def shuffled(x):
  """Their pixels mixed, in all of them alike."""
  mixed = np.random.default_rng(0).permutation(64)
  return x.reshape(-1, 64)[:, mixed].reshape(x.shape)


SPOILT = {
  'blurred': blurred,
  'shuffled': shuffled,
  'dark on light': lambda x: -x,
  'one digit': lambda x: np.repeat(x[:1], len(x), axis=0),
}


@pytest.mark.parametrize('name', SPOILT)
def test_what_is_no_digit_is_far(name, distance):
  x = digits(TEST).x
  assert distance(SPOILT[name](x)) > 20 * distance(x)


def test_it_sees_what_pixels_moments_do_not(distance):
  # A Gaussian of the digits' own mean and covariance is all the same to FD (pixels).
  x = digits(TEST).x.reshape(-1, 64)
  drawn = np.random.default_rng(0).multivariate_normal(x.mean(0), np.cov(x, rowvar=False), len(x))
  assert distance(drawn.reshape(-1, 8, 8, 1)) > 5 * distance(digits(TEST).x)
