"""Moments of any split of the features into batches and processes are those in one pass."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.experimental import multihost_utils

from gdm_jax.evaluation.moments import Moments, over_processes

law = settings(deadline=None, max_examples=100, derandomize=True)
sizes = st.lists(st.integers(0, 30), min_size=1, max_size=8)
seeds = st.integers(0, 2**32 - 1)
offsets = st.sampled_from([0.0, -1e4, 1e6])
dims = st.integers(1, 6)


def batches(sizes, seed, d, offset, dtype=np.float64):
  """Features of unlike scales about a mean that may be large, batch by batch."""
  rng = np.random.default_rng(seed)
  scale = 10.0 ** rng.uniform(-1, 1, d)
  return [(offset + scale * rng.normal(size=(n, d))).astype(dtype) for n in sizes]


def added(parts):
  return functools.reduce(operator.add, map(Moments.of, parts))


def assert_equal(one, other):
  """Means and covariances to 1e-8 of the features' own standard deviations."""
  assert one.count == other.count
  unit = np.sqrt(np.diag(other.covariance))
  np.testing.assert_allclose((one.mean - other.mean) / unit, 0, atol=1e-8)
  difference = (one.covariance - other.covariance) / np.outer(unit, unit)
  np.testing.assert_allclose(difference, 0, atol=1e-8)


@law
@given(sizes, seeds, dims, offsets, st.sampled_from([np.float64, np.float32]))
def test_batches_add_up_to_one_pass(sizes, seed, d, offset, dtype):
  assume(sum(sizes) >= 2)
  parts = batches(sizes, seed, d, offset, dtype)
  every = np.concatenate(parts).astype(np.float64)
  covariance = np.cov(every, rowvar=False).reshape(d, d)
  assume(np.diag(covariance).min() > 0)  # float32 has no digits left beside a large mean
  found = added(parts)
  assert found.count == sum(sizes)
  assert found.mean.dtype == found.covariance.dtype == np.float64
  unit = np.sqrt(np.diag(covariance))
  np.testing.assert_allclose((found.mean - every.mean(0)) / unit, 0, atol=1e-8)
  np.testing.assert_allclose((found.covariance - covariance) / np.outer(unit, unit), 0, atol=1e-8)


def test_a_difference_of_large_sums_would_fail_that_law():
  (x,) = batches([200], 0, 3, 1e6)
  careless = (x.T @ x - len(x) * np.outer(x.mean(0), x.mean(0))) / (len(x) - 1)
  unit = np.sqrt(np.diag(np.cov(x, rowvar=False)))
  off = (careless - np.cov(x, rowvar=False)) / np.outer(unit, unit)
  assert np.abs(off).max() > 1e-6


@law
@given(st.lists(st.integers(2, 30), min_size=3, max_size=3), seeds, dims, offsets)
def test_the_order_of_adding_does_not_matter(sizes, seed, d, offset):
  a, b, c = map(Moments.of, batches(sizes, seed, d, offset))
  assert_equal(a + b, b + a)
  assert_equal((a + b) + c, a + (b + c))


@law
@given(st.integers(2, 30), seeds, dims, offsets)
def test_nothing_adds_nothing(n, seed, d, offset):
  some, none = map(Moments.of, batches([n, 0], seed, d, offset))
  for total in (some + none, none + some):
    assert total.count == n
    np.testing.assert_array_equal(total.mean, some.mean)
    np.testing.assert_array_equal(total.scatter, some.scatter)
  assert (none + none).count == 0
  assert np.isfinite((none + none).mean).all()


@pytest.mark.parametrize('n', [0, 1])
def test_a_covariance_needs_two(n):
  with pytest.raises(ValueError, match=f'two samples at least, not {n}'):
    _ = Moments.of(np.ones((n, 3))).covariance
  np.testing.assert_array_equal(Moments.of(np.ones((2, 3))).covariance, np.zeros((3, 3)))


def test_one_process_has_them_all():
  some = Moments.of(np.eye(3))
  assert over_processes(some) is some


def gather(rows):
  """What process_allgather gives, which sends arrays through jax: float64 would be float32."""
  return np.asarray(jnp.stack([jnp.asarray(row) for row in rows]))


@pytest.mark.parametrize('counts', [(7, 5), (7, 0), (0, 5)])
def test_two_processes_get_the_exact_sum(counts, monkeypatch):
  mine, others = map(Moments.of, batches(counts, 0, 4, 1e4))
  packed = []

  def alone(x):
    packed.append(x)
    return gather([x])

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  for moments in (mine, others):
    monkeypatch.setattr(multihost_utils, 'process_allgather', alone)
    over_processes(moments)
  assert len(packed) == 2

  wanted = mine + others
  assert (wanted.mean != wanted.mean.astype(np.float32)).any()
  for moments in (mine, others):
    monkeypatch.setattr(multihost_utils, 'process_allgather', lambda x: gather(packed))
    found = over_processes(moments)
    assert found.count == sum(counts)
    np.testing.assert_array_equal(found.mean, wanted.mean)
    np.testing.assert_array_equal(found.scatter, wanted.scatter)
