"""What is kept in files between evaluations: statistics of real images."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from gdm_jax import main
from gdm_jax.data import sources
from gdm_jax.data.contents import Contents
from gdm_jax.evaluation import distances, features, reference, summary
from gdm_jax.evaluation.moments import Moments
from gdm_jax.evaluation.summary import Summary
from gdm_jax.runtime import sharding
from gdm_jax.runtime.errors import ConfigError, DataError
from tests.support import runs

ABOUT = {
  'features': 'pixels',
  'identity': '0123abcd',
  'data': 'digits',
  'split': 'train[:50%]',
  'shape': '8x8x1',
  'fingerprint': '0123456789abcdef',
}


def config(*overrides):
  """That of the tiny runs, compared by their pixels with few images."""
  few = ('--config.evaluation.features=pixels', '--config.data.split=train[:64]')
  return main.parse(['', *runs.arguments('unused', *few, *overrides)])[0]


def obtain(folder, *overrides):
  c = config(*overrides)
  return reference.obtain(c, features.load_features(c, folder), folder, sharding.mesh())


def digits():
  return sources.load('digits', 'train[:64]', (8, 8, 1))


def statistics():
  x = np.random.default_rng(0).normal(1e4, 1, size=(40, 3))
  return Summary(Moments.of(x), x[:30].astype(np.float32))


def assert_same(one, other):
  for a, b in zip(jax.tree.leaves(parts(one)), jax.tree.leaves(parts(other)), strict=True):
    assert np.asarray(a).dtype == np.asarray(b).dtype
    np.testing.assert_array_equal(a, b)


def parts(summary):
  return dataclasses.asdict(summary.moments), summary.kept


@pytest.fixture
def saved(tmp_path):
  file = tmp_path / 'new' / 'reference.npz'
  reference.save(file, statistics(), ABOUT)
  return file


def test_statistics_come_back(saved):
  found, about = reference.load(saved)
  assert about == ABOUT
  assert_same(found, statistics())
  assert [f.name for f in saved.parent.iterdir()] == [saved.name]


def assert_refused(file):
  with pytest.raises(ConfigError) as caught:
    reference.load(file)
  assert str(caught.value).startswith(
    f'{file} holds no statistics of --mode=reference, or is damaged: '
  )


def test_a_file_of_something_else_is_refused(saved):
  assert_refused(saved.with_name('nowhere.npz'))
  assert_refused(saved.parent)
  saved.write_bytes(b'')
  assert_refused(saved)
  saved.write_text('no archive')
  assert_refused(saved)
  with saved.open('wb') as f:
    np.save(f, np.zeros(3))
  assert_refused(saved)
  np.savez(saved, x=np.zeros((30, 8, 8, 1)))
  assert_refused(saved)


def test_nothing_is_unpickled(saved):
  fields = dict.fromkeys(reference.ARRAYS, np.array([{}], object))
  np.savez(saved, **fields)
  assert_refused(saved)


@pytest.mark.parametrize('about', ['no json', '[]', '{}', '3', '{"features": "pixels"}'])
def test_statistics_of_nobody_knows_what_are_refused(about, saved):
  with np.load(saved) as arrays:
    np.savez(saved, **{**arrays, 'about': about})
  assert_refused(saved)


def test_a_truncated_file_is_refused(saved):
  whole = saved.read_bytes()
  for size in range(0, len(whole), 7):
    saved.write_bytes(whole[:size])
    assert_refused(saved)


@pytest.mark.parametrize('flipped', [0x01, 0xFF])
def test_no_damaged_byte_goes_unnoticed(flipped, saved):
  whole = saved.read_bytes()
  refused = harmless = 0
  for place in range(len(whole)):
    saved.write_bytes(whole[:place] + bytes([whole[place] ^ flipped]) + whole[place + 1 :])
    try:
      found, about = reference.load(saved)
    except ConfigError as error:
      refused += str(saved) in str(error)
    else:  # such as an archive's dates, which say nothing
      harmless += 1
      assert about == ABOUT
      assert_same(found, statistics())
  assert refused + harmless == len(whole)
  assert refused > len(whole) / 2


def test_statistics_are_made_once(tmp_path, monkeypatch):
  made, about = obtain(tmp_path)
  (file,) = tmp_path.iterdir()
  fingerprint = Contents.of(digits()).fingerprint
  assert file.name == f'reference-pixels-{fingerprint}.npz'
  pixels = features.load_features(config(), tmp_path)
  assert about == {
    **ABOUT,
    'split': 'train[:64]',
    'identity': pixels.fingerprint,
    'fingerprint': fingerprint,
  }
  x = digits().x
  flat = (np.round((x + 1) * 127.5) / 127.5 - 1).reshape(64, -1)
  assert made.moments.count == 64
  np.testing.assert_allclose(made.moments.mean, flat.mean(0), atol=1e-6)
  np.testing.assert_allclose(made.moments.covariance, np.cov(flat, rowvar=False), atol=1e-6)
  assert np.abs(made.kept - flat).max() > 0.1  # in another order, since only the first are kept
  assert_same_rows(made.kept, flat)

  # Of another split there are others, in another file.
  other, about = obtain(tmp_path, '--config.evaluation.split=train[64:100]')
  assert (about['split'], other.moments.count) == ('train[64:100]', 36)
  assert len(list(tmp_path.iterdir())) == 2

  monkeypatch.setattr(reference, 'collect', None)
  again, _ = obtain(tmp_path)
  assert_same(again, made)


def assert_same_rows(a, b):
  np.testing.assert_allclose(*(x[np.lexsort(np.round(x.T, 3))] for x in (a, b)), atol=1e-6)


def test_statistics_of_something_else_are_replaced(tmp_path):
  made, about = obtain(tmp_path)
  (file,) = tmp_path.iterdir()
  reference.save(file, statistics(), {**about, 'identity': 'anotherone'})
  again, found = obtain(tmp_path)
  assert found == about
  assert_same(again, made)
  assert_same(reference.load(file)[0], made)


@pytest.mark.parametrize(
  ('key', 'value'), [('features', 'inception'), ('identity', '89abcdef'), ('shape', '32x32x3')]
)
def test_a_named_file_of_something_else_is_refused(key, value, tmp_path):
  c = config(f'--config.evaluation.reference={tmp_path}/mine.npz')
  pixels = features.load_features(c, tmp_path)
  about = reference.describe(c, pixels, digits())
  file = tmp_path / 'mine.npz'
  reference.save(file, statistics(), {**about, key: value})
  before = file.read_bytes()
  with pytest.raises(ConfigError) as caught:
    reference.obtain(c, pixels, tmp_path, sharding.mesh())
  assert str(caught.value) == (
    f'evaluation.reference = {file}: statistics of {key} {value}, not {about[key]}; '
    'make them with --mode=reference'
  )
  assert file.read_bytes() == before
  assert [f.name for f in tmp_path.iterdir()] == ['mine.npz']


def test_files_of_older_versions_have_no_fingerprint(saved):
  with np.load(saved) as arrays:
    about = {key: value for key, value in ABOUT.items() if key != 'fingerprint'}
    np.savez(saved, **{**arrays, 'about': json.dumps(about)})
  found, about = reference.load(saved)
  assert about == {**ABOUT, 'fingerprint': ''}
  assert_same(found, statistics())


def test_a_named_file_may_be_of_other_data(tmp_path):
  # CIFAR-10's training set is what a model of its first half is compared with, too.
  c = config(f'--config.evaluation.reference={tmp_path}/mine.npz')
  pixels = features.load_features(c, tmp_path)
  about = {
    **reference.describe(c, pixels, digits()),
    'data': 'npz:elsewhere',
    'split': 'train[:7%]',
  }
  reference.save(tmp_path / 'mine.npz', statistics(), about)
  found, said = reference.obtain(c, pixels, tmp_path, sharding.mesh())
  assert said == about
  assert_same(found, statistics())


def fid_ref(file, d=96):
  rng = np.random.default_rng(0)
  factor = rng.normal(size=(d, 32))
  arrays = {'mu': rng.normal(size=d), 'sigma': factor @ factor.T / 32}
  np.savez(file, **arrays)
  return arrays


INCEPTION = features.Features('inception', {}, lambda params, images: images)


def test_references_of_edm_give_the_same_distance_as_mu_and_sigma(tmp_path, monkeypatch):
  monkeypatch.setattr(reference, 'INCEPTION', 96)  # of 2048 features a distance takes a minute
  arrays = fid_ref(tmp_path / 'cifar10-32x32.npz')
  c = config(f'--config.evaluation.reference={tmp_path}/cifar10-32x32.npz')
  found, about = reference.obtain(c, INCEPTION, tmp_path, sharding.mesh())
  assert (about['data'], about['split'], about['features']) == (
    'cifar10-32x32.npz',
    '',
    'inception',
  )
  x = np.random.default_rng(1).normal(size=(40, 96))
  generated = Summary(Moments.of(x), x.astype(np.float32))
  m = generated.moments
  expected = distances.frechet(m.mean, m.covariance, arrays['mu'], arrays['sigma'])
  scores = summary.scores(generated, found)
  assert scores.distance == pytest.approx(expected, rel=1e-12)
  assert np.isnan(scores.kernel)
  assert scores.compared == 0


def test_references_of_edm_are_of_inception_alone(tmp_path):
  fid_ref(tmp_path / 'other.npz', 64)
  c = config(f'--config.evaluation.reference={tmp_path}/other.npz')
  pixels = features.load_features(c, tmp_path)
  for of in (pixels, INCEPTION):
    with pytest.raises(
      ConfigError, match=r'mu \(64,\) and sigma \(64, 64\) of EDM are those of 2048'
    ):
      reference.obtain(c, of, tmp_path, sharding.mesh())


def test_a_named_file_that_is_not_there_is_an_error(tmp_path):
  with pytest.raises(ConfigError, match=re.escape(f'{tmp_path}/mine.npz holds no statistics')):
    obtain(tmp_path, f'--config.evaluation.reference={tmp_path}/mine.npz')


def test_errors_of_the_split_name_it(tmp_path):
  with pytest.raises(DataError, match=re.escape("evaluation.split = 'test': ")):
    obtain(tmp_path, '--config.evaluation.split=test')
  message = re.escape("evaluation.split = 'train[:19]': 19 images of digits are too few; 20 are")
  with pytest.raises(ConfigError, match=message):
    obtain(tmp_path, '--config.evaluation.split=train[:19]')
  assert list(tmp_path.iterdir()) == []
  assert obtain(tmp_path, '--config.evaluation.split=train[:20]')[0].moments.count == 20


def test_data_that_are_not_finite_are_named(tmp_path):
  x = np.zeros((40, 8, 8, 1), np.float32)
  x[17, 3] = np.nan
  np.savez(tmp_path / 'mine.npz', x=x)
  mine = f'--config.data.name=npz:{tmp_path}/mine.npz'
  with pytest.raises(DataError, match='holds NaN or infinity, first in example 17'):
    obtain(tmp_path / 'statistics', mine)
