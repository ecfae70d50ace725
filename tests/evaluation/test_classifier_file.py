"""A classifier in its file: trained once, replaced where it is another's, damage is an error."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from gdm_jax.data import sources
from gdm_jax.evaluation import classifier, features
from gdm_jax.runtime.errors import ConfigError
from tests.evaluation.test_reference import config
from tests.support import runs


@pytest.fixture
def small(monkeypatch):
  """Classifiers that are trained in a moment."""
  monkeypatch.setattr(classifier, 'WIDTHS', (2, 2, 2))
  monkeypatch.setattr(classifier, 'IMAGES', 4 * classifier.BATCH)


def digits(split='train[:300]'):
  return sources.load('digits', split, (8, 8, 1))


def test_a_seed_is_a_classifier(small):
  (first, right), again, other = (classifier.train(digits(), seed) for seed in (0, 0, 1))
  assert 0 <= right <= 1
  assert first.keys() == {'conv0', 'conv1', 'conv2', 'logits'}
  runs.assert_same_bits(*(leaves(params) for params in (first, again[0])))
  assert right == again[1]
  assert leaves(first)[1].tobytes() != leaves(other[0])[1].tobytes()


def leaves(params):
  return [np.asarray(x) for x in jax.tree.leaves(params)]


def test_a_classifier_is_trained_once(small, tmp_path, monkeypatch):
  file = tmp_path / 'new' / 'classifier.npz'
  made, right = classifier.cached(file, digits(), 'digits')
  assert [f.name for f in file.parent.iterdir()] == [file.name]
  with monkeypatch.context() as patch:
    patch.setattr(classifier, 'train', None)
    again, said = classifier.cached(file, digits(), 'digits')
  assert said == right
  assert jax.tree.structure(again) == jax.tree.structure(made)
  runs.assert_same_bits(leaves(again), leaves(made))


@pytest.mark.parametrize('changed', ['data', 'labels', 'IMAGES'])
def test_a_classifier_of_something_else_is_replaced(changed, small, tmp_path, monkeypatch):
  file, source = tmp_path / 'classifier.npz', digits()
  classifier.cached(file, source, 'digits')
  before = file.read_bytes()
  if changed == 'IMAGES':
    monkeypatch.setattr(classifier, 'IMAGES', 8 * classifier.BATCH)
  elif changed == 'data':
    source = digits('train[300:600]')
  else:
    source = dataclasses.replace(source, label=9 - source.label)
  made, _ = classifier.cached(file, source, 'digits')
  assert file.read_bytes() != before
  runs.assert_same_bits(leaves(made), leaves(classifier.train(source)[0]))
  monkeypatch.setattr(classifier, 'train', None)
  again, _ = classifier.cached(file, source, 'digits of another name')
  runs.assert_same_bits(leaves(again), leaves(made))


@pytest.fixture
def cached(small, tmp_path, monkeypatch):
  """The file of a classifier, when none can be trained."""
  file = tmp_path / 'classifier.npz'
  classifier.cached(file, digits(), 'digits')
  monkeypatch.setattr(classifier, 'train', None)
  return file


def assert_damaged(file):
  before = file.read_bytes()
  with pytest.raises(ConfigError, match=re.escape(f'{file} is damaged (')) as caught:
    classifier.cached(file, digits(), 'digits')
  assert 'remove it to train another' in str(caught.value)
  assert file.read_bytes() == before


def test_a_damaged_classifier_is_an_error(cached):
  whole = cached.read_bytes()
  middle = len(whole) // 2
  for damaged in (
    whole[: middle // 2] + b'????' + whole[middle // 2 + 4 :],
    whole[:middle],
    whole[:-1],
    b'',
    b'no archive',
  ):
    cached.write_bytes(damaged)
    assert_damaged(cached)


@pytest.mark.parametrize('array', [np.zeros(3), np.zeros((3, 2)), np.zeros(())])
def test_a_single_array_is_no_classifier(array, cached):
  with cached.open('wb') as f:
    np.save(f, array)
  assert_damaged(cached)


def test_no_damaged_byte_of_a_classifier_goes_unnoticed(cached):
  whole = cached.read_bytes()
  made = leaves(classifier.cached(cached, digits(), 'digits')[0])
  refused = harmless = 0
  places = range(0, len(whole), 29)
  for place in places:
    cached.write_bytes(whole[:place] + bytes([whole[place] ^ 0x01]) + whole[place + 1 :])
    try:
      found = leaves(classifier.cached(cached, digits(), 'digits')[0])
    except ConfigError as error:
      refused += str(cached) in str(error)
    else:
      harmless += 1
      runs.assert_same_bits(found, made)
  assert refused + harmless == len(places)
  assert refused > len(places) / 2


def test_a_classifier_needs_labels(small, tmp_path):
  file = tmp_path / 'mine.npz'
  x = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1)).astype(np.uint8)
  np.savez(file, x=x)
  overrides = (f'--config.data.name=npz:{file}', '--config.data.split=train')
  overrides += ('--config.evaluation.features=classifier',)
  message = f"evaluation.features = 'classifier' needs labels, and npz:{file} has none"
  with pytest.raises(ConfigError, match=re.escape(message)):
    features.load_features(config(*overrides), tmp_path)
  np.savez(file, x=x, label=np.arange(64) % 3)
  found = features.load_features(config(*overrides), tmp_path)
  assert found.params['logits']['bias'].shape == (3,)
  assert found.metric == 'FD (classifier)'


def test_other_weights_are_other_features(small, tmp_path):
  c = config('--config.evaluation.features=classifier')
  found = features.load_features(c, tmp_path)
  assert re.fullmatch('[0-9a-f]{8}', found.fingerprint)
  assert features.load_features(c, tmp_path).fingerprint == found.fingerprint
  assert features.load_features(c, tmp_path / 'elsewhere').fingerprint == found.fingerprint
  nudged = jax.tree.map(lambda x: np.asarray(x) * np.float32(1 + 1e-6), found.params)
  assert dataclasses.replace(found, params=nudged).fingerprint != found.fingerprint
  assert features.load_features(config(), tmp_path).fingerprint != found.fingerprint
