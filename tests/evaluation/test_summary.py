"""Features streamed over devices give the moments of one pass; what cannot be scored raises."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax import build, main
from gdm_jax.evaluation import distances, features, summary
from gdm_jax.evaluation.evaluator import Checkpoint, Evaluator
from gdm_jax.evaluation.moments import Moments
from gdm_jax.evaluation.summary import Collector, Summary
from gdm_jax.runtime import sharding
from gdm_jax.runtime.errors import DivergedError, check_finite
from tests.support import runs

SIZES = (13, 8, 1, 40, 23)


def config(*overrides):
  """That of the tiny runs, compared by their pixels."""
  pixels = ('--config.evaluation.features=pixels', '--config.evaluation.seeds=0-29')
  return main.parse(['', *runs.arguments('unused', *pixels, *overrides)])[0]


def images():
  return np.random.default_rng(0).integers(0, 256, (sum(SIZES), 5, 4, 1)).astype(np.uint8)


def stream(file):
  """Collects the pixels of images, in batches that no number of devices divides, over all devices.

  Each batch starts a little after its array does, and is padded with images that do not count.
  """
  mesh = sharding.mesh()
  of = features.load_features(config(), pathlib.Path()).jitted(mesh)
  collector, first = Collector(), 3
  for some in np.split(images(), np.cumsum(SIZES)[:-1]):
    size = -(-(first + len(some)) // mesh.size) * mesh.size
    padded = np.full((size, *some.shape[1:]), 255, np.uint8)
    padded[first : first + len(some)] = some
    found, finite = of(jax.device_put(padded, sharding.batch_sharded(mesh)))
    assert len(found.addressable_shards) == mesh.size
    assert finite.all()
    collector.add(found, slice(first, first + len(some)))
  made = collector.summary()
  m = made.moments
  np.savez(file, devices=mesh.size, count=m.count, mean=m.mean, scatter=m.scatter, kept=made.kept)


def streamed(folder, devices):
  """The same in a process that has that many devices."""
  file = folder / f'{devices}.npz'
  code = f'from tests.evaluation import test_summary; test_summary.stream({str(file)!r})'
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=runs.ROOT,
    env=runs.environment(devices),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  with np.load(file) as arrays:
    assert arrays['devices'] == devices
    return dict(arrays)


def test_eight_devices_give_the_moments_of_one_pass(tmp_path):
  found = streamed(tmp_path, 8)
  pixels = images().reshape(sum(SIZES), -1) / 127.5 - 1
  np.testing.assert_allclose(found['kept'], pixels, atol=1e-6)  # float32, all and in their order
  kept = found['kept'].astype(np.float64)
  assert found['count'] == len(kept) == sum(SIZES)
  np.testing.assert_allclose(found['mean'], kept.mean(0), atol=1e-8)
  covariance = found['scatter'] / (found['count'] - 1)
  np.testing.assert_allclose(covariance, np.cov(kept, rowvar=False), atol=1e-8)


def on_devices(x):
  return jax.device_put(jnp.asarray(x), sharding.batch_sharded(sharding.mesh()))


def test_rows_choose_what_is_collected(monkeypatch):
  monkeypatch.setattr(summary, 'KEPT', 7)
  x = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
  collector = Collector()
  rows = slice(0, 4), slice(8, 8), slice(10, 15), slice(20, 30)
  for some in rows:
    collector.add(on_devices(x), some)
  made = collector.summary()
  chosen = np.concatenate([x[some] for some in rows])
  wanted = Moments.of(chosen)
  assert made.moments.count == 19
  np.testing.assert_allclose(made.moments.mean, wanted.mean, rtol=1e-12)
  np.testing.assert_allclose(made.moments.scatter, wanted.scatter, rtol=1e-12)
  np.testing.assert_array_equal(made.kept, chosen[:7])


def test_nothing_collected_raises():
  with pytest.raises(ValueError, match='there are no images'):
    Collector().summary()


def summed(x):
  return Summary(Moments.of(x), np.asarray(x))


def test_scores_are_the_distances():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(50, 4)), rng.normal(0.5, 1, size=(80, 4))
  found = summary.scores(summed(a), summed(b))
  covariances = [np.cov(x, rowvar=False) for x in (a, b)]
  wanted = distances.frechet(a.mean(0), covariances[0], b.mean(0), covariances[1])
  np.testing.assert_allclose(found.distance, wanted, rtol=1e-9)
  assert (found.kernel, found.kernel_error) == distances.kernel(a, b[:50])
  assert (found.precision, found.recall) == distances.precision_recall(a, b[:50])


def test_scores_of_too_few_or_other_features_raise():
  x = np.random.default_rng(0).normal(size=(40, 4))
  for pair in ((x[:19], x), (x, x[:19])):
    with pytest.raises(ValueError, match='19 images are too few'):
      summary.scores(*map(summed, pair))
  assert summary.scores(summed(x[:20]), summed(x)).distance > 0
  with pytest.raises(ValueError, match='statistics of different features'):
    summary.scores(summed(x[:, :3]), summed(x))
  x[5, 2] = np.nan
  with pytest.raises(ValueError, match='not all finite'):
    summary.scores(summed(x), summed(x))


def test_samples_are_rounded_as_they_are_in_files():
  pixels = features.load_features(config(), pathlib.Path())
  of = pixels.jitted(sharding.mesh())
  whole = images()[:8]
  off = np.random.default_rng(1).uniform(-0.49, 0.49, whole.shape)
  x = ((whole + off) / 127.5 - 1).astype(np.float32)
  found, finite = of(on_devices(x))
  np.testing.assert_array_equal(found, of(on_devices(whole))[0])
  assert finite.all()
  x[2, 1, 1], x[5, 0, 0] = np.nan, -np.inf
  assert np.flatnonzero(~np.asarray(of(on_devices(x))[1])).tolist() == [2, 5]


def test_images_that_are_not_finite_are_named():
  seeds = np.array([3, 4, 8, 9])
  check_finite(np.full(4, True), str)
  message = '2 of 4 hold NaN or infinity, first seed 4: the model or the solver diverged'
  with pytest.raises(DivergedError, match=message):
    check_finite(np.array([True, False, True, False]), lambda i: f'seed {seeds[i]}')


@pytest.fixture(scope='module')
def evaluation(tmp_path_factory):
  """An evaluator of a model as it is drawn, its config and its parameters."""
  c = config('--config.data.split=train[:64]', '--config.sampling.batch=16')
  system = build.system(c)
  params = jax.jit(system.predictor.init)(jax.random.key(0))
  measure = Evaluator(c, system, tmp_path_factory.mktemp('evaluation'), sharding.mesh())
  return measure, c, Checkpoint(params, 0)


def test_a_model_that_diverged_is_no_score(evaluation):
  measure, c, weights = evaluation
  broken = Checkpoint(jax.tree.map(lambda x: jnp.full_like(x, np.nan), weights.params), 0)
  message = '16 of 16 hold NaN or infinity, first the image of seed 0: '
  with pytest.raises(DivergedError, match=message):
    measure(c, broken)


def test_an_evaluation_stops_after_a_batch(evaluation, monkeypatch):
  measure, c, weights = evaluation
  seen, collect = [], Evaluator.collect

  def counted(self, collectors, x, seeds):
    seen.append(len(seeds))
    collect(self, collectors, x, seeds)

  monkeypatch.setattr(Evaluator, 'collect', counted)
  assert measure(c, weights, lambda: True) is None
  assert seen == [16]
  assert measure(c, weights).distance > 0
  assert seen == [16, 16, 14]


def test_the_config_of_a_call_says_how_it_samples(evaluation):
  measure, c, weights = evaluation
  found = measure(c, weights)
  assert measure(c, weights) == found
  for override in ('sampling.order=3,2,1,0', 'evaluation.seeds=30-59', 'sampling.solver=heun'):
    other = config(f'--config.{override}')
    assert measure.key(other, weights) != measure.key(c, weights)
    assert measure(other, weights) != found


def test_each_collector_gets_its_share(evaluation):
  measure, _, _ = evaluation
  x = np.random.default_rng(0).uniform(-1, 1, (3 * 8, 8, 8, 1)).astype(np.float32)
  collectors = [Collector() for _ in range(3)]
  measure.collect(collectors, on_devices(x), np.arange(5))
  for i, collector in enumerate(collectors):
    pixels = np.round((x[8 * i : 8 * i + 5] + 1) * 127.5).reshape(5, -1) / 127.5 - 1
    np.testing.assert_allclose(collector.summary().kept, pixels, atol=1e-6)
  x[13] = np.nan  # of the second share the sixth, which is not asked for
  measure.collect(collectors, on_devices(x), np.arange(5))
  x[12] = np.nan
  with pytest.raises(
    DivergedError, match=r'1 of 5 hold NaN or infinity, first the image of seed 44'
  ):
    measure.collect(collectors, on_devices(x), np.arange(40, 45))
