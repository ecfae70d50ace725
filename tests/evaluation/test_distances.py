"""Distances against closed forms, loops, and the laws that every distance keeps."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdm_jax.evaluation import distances

law = settings(deadline=None, max_examples=200, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def rotation(rng, d):
  return np.linalg.qr(rng.normal(size=(d, d)))[0]


def statistics(x):
  return x.mean(0), np.cov(x, rowvar=False).reshape(x.shape[1], -1)


@pytest.mark.parametrize('d', [1, 2, 64, 300])
@pytest.mark.parametrize('rotated', [False, True])
def test_frechet_of_covariances_that_commute(d, rotated):
  rng = np.random.default_rng(d)
  a, b = 10 ** rng.uniform(-3, 3, (2, d))
  means = rng.normal(size=(2, d))
  u = rotation(rng, d) if rotated else np.eye(d)
  found = distances.frechet(means[0], u * a @ u.T, means[1], u * b @ u.T)
  wanted = np.square(means[0] - means[1]).sum() + np.square(np.sqrt(a) - np.sqrt(b)).sum()
  np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize('d', [2, 64])
def test_frechet_of_rank_one(d):
  # Roots of the rounding in eigenvalues that should be 0 would take half the digits.
  a, b = np.random.default_rng(d).normal(size=(2, d))
  found = distances.frechet(np.zeros(d), np.outer(a, a), np.zeros(d), np.outer(b, b))
  np.testing.assert_allclose(found, a @ a + b @ b - 2 * abs(a @ b), rtol=1e-10)
  across = b - a * (a @ b) / (a @ a)
  found = distances.frechet(np.zeros(d), np.outer(a, a), np.zeros(d), np.outer(across, across))
  np.testing.assert_allclose(found, a @ a + across @ across, rtol=1e-10)


@pytest.mark.parametrize(('n', 'm', 'd'), [(20, 30, 64), (20, 500, 64), (80, 40, 200)])
def test_frechet_of_fewer_samples_than_features(n, m, d):
  # With C = X^T X, tr (C_a C_b)^(1/2) is the nuclear norm of X_a X_b^T, which needs no root.
  rng = np.random.default_rng(n)
  scale = 10 ** rng.uniform(-2, 2, d)
  a, b = (rng.normal(size=(count, d)) * scale for count in (n, m))
  x, y = ((v - v.mean(0)) / np.sqrt(len(v) - 1) for v in (a, b))
  shared = np.linalg.svd(x @ y.T, compute_uv=False).sum()
  step = a.mean(0) - b.mean(0)
  wanted = step @ step + np.square(x).sum() + np.square(y).sum() - 2 * shared
  found = distances.frechet(*statistics(a), *statistics(b))
  np.testing.assert_allclose(found, wanted, rtol=1e-10)


@pytest.mark.parametrize('d', [1, 64])
def test_frechet_of_a_shift_is_its_square(d):
  rng = np.random.default_rng(0)
  mean, covariance = statistics(rng.normal(size=(3 * d + 1, d)))
  step = rng.normal(size=d)
  found = distances.frechet(mean, covariance, mean + step, covariance)
  np.testing.assert_allclose(found, step @ step, rtol=1e-6)


def features(seed, n, d, spread, offset=0.0):
  """Features of unlike scales, more or fewer than they have dimensions."""
  rng = np.random.default_rng(seed)
  return offset + rng.normal(size=(n, d)) * 10 ** rng.uniform(-spread, spread, d)


counts, dims, spreads = st.integers(2, 30), st.integers(1, 24), st.sampled_from([0, 1, 3])


@law
@given(seeds, counts, dims, spreads, st.sampled_from([0.0, 1e4]))
def test_frechet_of_the_same_is_exactly_zero(seed, n, d, spread, offset):
  same = statistics(features(seed, n, d, spread, offset))
  assert distances.frechet(*same, *same) == 0


@pytest.mark.parametrize('n', [50, 600])
def test_frechet_of_the_same_is_exactly_zero_in_many_dimensions(n):
  same = statistics(features(0, n, 200, 2))
  assert distances.frechet(*same, *same) == 0
  nothing = np.zeros(200), np.zeros((200, 200))
  assert distances.frechet(*nothing, *nothing) == 0


@law
@given(seeds, counts, counts, dims, spreads)
def test_frechet_is_symmetric_and_not_negative(seed, n, m, d, spread):
  a = statistics(features(seed, n, d, spread))
  b = statistics(features(seed + 1, m, d, spread))
  found = distances.frechet(*a, *b)
  assert found > 0
  np.testing.assert_allclose(found, distances.frechet(*b, *a), rtol=1e-9)


@law
@given(seeds, counts, counts, dims)
def test_frechet_does_not_see_a_rotation(seed, n, m, d):
  a, b = features(seed, n, d, 1), features(seed + 1, m, d, 1)
  u = rotation(np.random.default_rng(seed), d)
  found = distances.frechet(*statistics(a @ u), *statistics(b @ u))
  np.testing.assert_allclose(found, distances.frechet(*statistics(a), *statistics(b)), rtol=1e-6)


@pytest.mark.parametrize('place', range(4))
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_frechet_of_what_is_not_finite_raises(place, value):
  given = [np.zeros(2), np.eye(2), np.zeros(2), np.eye(2)]
  given[place][..., 1] = value
  with pytest.raises(ValueError, match='not all finite'):
    distances.frechet(*given)


@pytest.mark.parametrize('shapes', [(2, (2, 2), 3, (3, 3)), (2, (2, 3), 2, (2, 2)), (2, 2, 2, 2)])
def test_frechet_of_other_shapes_raises(shapes):
  with pytest.raises(ValueError, match='statistics of different features'):
    distances.frechet(*map(np.zeros, shapes))


def kernel_in_loops(a, b, size):
  """The mean of unbiased estimates on disjoint blocks, pair by pair; and its standard error."""

  def k(x, y):
    return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

  def estimate(a, b):
    n = len(a)
    within = sum(k(x[i], x[j]) for x in (a, b) for i in range(n) for j in range(n) if i != j) / (
      n * (n - 1)
    )
    return within - 2 * sum(k(x, y) for x in a for y in b) / n**2

  count = min(len(a), len(b)) // size
  found = [estimate(*(x[i * size : (i + 1) * size] for x in (a, b))) for i in range(count)]
  return np.mean(found), np.std(found, ddof=1) / count**0.5


@pytest.mark.parametrize(
  ('n', 'm', 'block', 'size'), [(40, 40, 1000, 4), (35, 47, 1000, 3), (60, 60, 5, 5)]
)
def test_kernel_is_the_loop_over_pairs(n, m, block, size, monkeypatch):
  monkeypatch.setattr(distances, 'BLOCK', block)
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(n, 5)), rng.normal(0.5, 2, size=(m, 5))
  order = np.random.default_rng(0)
  shuffled = (x[order.permutation(len(x))] for x in (a, b))
  np.testing.assert_allclose(distances.kernel(a, b), kernel_in_loops(*shuffled, size), rtol=1e-10)


@pytest.fixture(scope='module')
def repetitions():
  """Estimates for equal distributions, and their errors."""
  rng = np.random.default_rng(0)
  return np.array([distances.kernel(*rng.normal(size=(2, 200, 4))) for _ in range(200)])


def test_kernel_of_equal_distributions_is_zero_on_average(repetitions):
  found, error = repetitions.T
  assert abs(found.mean()) < 4 * found.std() / len(found) ** 0.5
  assert np.mean(np.abs(found) < 4 * error) > 0.97
  assert (found < 0).any()
  # With the diagonals, as a biased estimate has them, it would be far from that.
  x = np.random.default_rng(1).normal(size=(20_000, 4))
  k = [((x * y).sum(1) / 4 + 1) ** 3 for y in (x, x[::-1])]
  assert 2 * (k[0].mean() - k[1].mean()) / 20 > 20 * found.std() / len(found) ** 0.5


def test_kernel_of_classes_in_turn_is_zero_on_average():
  """As samples of a model of labels are; blocks of neighbours gave -40 +- 2."""
  rng = np.random.default_rng(0)
  centres = 4 * rng.normal(size=(10, 4))

  def features(classes):
    return centres[classes] + rng.normal(size=(1000, 4))

  values = [
    distances.kernel(features(np.arange(1000) % 10), features(rng.integers(0, 10, 1000)))[0]
    for _ in range(40)
  ]
  assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(40)


def test_kernels_error_is_the_spread_of_its_repetitions(repetitions):
  found, error = repetitions.T
  assert 0.8 < np.sqrt(np.mean(error**2)) / found.std(ddof=1) < 1.25


def test_kernel_against_the_moments_that_it_compares():
  # In one dimension (x y + 1)^3 compares m1, m2 and m3, of weights 3, 3, 1: here 1, 1 and 4.
  rng = np.random.default_rng(0)
  found, error = distances.kernel(rng.normal(size=(20_000, 1)), rng.normal(1, 1, (20_000, 1)))
  assert abs(found - (3 + 3 + 16)) < 4 * error
  assert error < 1.5


@pytest.mark.parametrize(('n', 'm'), [(19, 100), (100, 19), (0, 0)])
def test_kernel_of_too_few_raises(n, m):
  with pytest.raises(ValueError, match=f'20 features of each set at least, not {min(n, m)}'):
    distances.kernel(np.ones((n, 3)), np.ones((m, 3)))
  assert distances.kernel(np.ones((20, 3)), np.ones((20, 3))) == (0, 0)


def share_in_loops(points, manifold):
  """The points that lie within some ball to a third neighbour of the manifold."""
  radii = [sorted(np.linalg.norm(x - y) for y in manifold)[3] for x in manifold]
  inside = [
    any(np.linalg.norm(p - x) <= r for x, r in zip(manifold, radii, strict=True)) for p in points
  ]
  return sum(inside) / len(points)


def spread_out():
  rng = np.random.default_rng(0)
  return rng.normal(size=(37, 3)), rng.normal(0.7, 0.8, size=(52, 3))


def test_precision_and_recall_are_the_loops_over_points():
  a, b = spread_out()
  found = distances.precision_recall(a, b)
  assert found == (share_in_loops(a, b), share_in_loops(b, a))
  assert found[0] != found[1]
  assert max(found) < 1
  assert distances.precision_recall(b, a) == found[::-1]


@pytest.mark.parametrize('chunk', [1, 7, 37, 52])
def test_chunks_change_nothing(chunk, monkeypatch):
  wanted = distances.precision_recall(*spread_out())
  monkeypatch.setattr(distances, 'CHUNK', chunk)
  assert distances.precision_recall(*spread_out()) == wanted


@pytest.mark.parametrize('dtype', [np.float64, np.float32])
def test_a_large_offset_changes_nothing(dtype):
  # Of whole 64ths float32 has every digit beside it.
  a, b = (np.round(x * 64) / 64 for x in spread_out())
  wanted = distances.precision_recall(a, b)
  assert distances.precision_recall(*((x + 1e4).astype(dtype) for x in (a, b))) == wanted


@law
@given(seeds, st.integers(4, 60), st.integers(1, 6), st.integers(1, 5))
def test_a_set_covers_itself(seed, n, d, copies):
  x = np.repeat(np.random.default_rng(seed).normal(size=(n, d)), copies, axis=0)
  assert distances.precision_recall(x, x) == (1, 1)


def test_sets_far_apart_cover_nothing():
  a, b = spread_out()
  assert distances.precision_recall(a + 100, b) == (0, 0)


def test_a_mode_of_many_is_precise_and_recalls_little():
  rng = np.random.default_rng(0)
  modes = 20 * rng.normal(size=(10, 8))
  real = (modes[:, None] + rng.normal(size=(10, 40, 8))).reshape(-1, 8)
  collapsed = real[:40] + 1e-3 * rng.normal(size=(40, 8))
  precision, recall = distances.precision_recall(collapsed, real)
  assert precision == 1
  assert recall <= 0.1


@pytest.mark.parametrize(('n', 'm'), [(3, 10), (10, 3)])
def test_too_few_for_a_manifold_raises(n, m):
  with pytest.raises(ValueError, match=re.escape('need 4 features of each set at least')):
    distances.precision_recall(np.ones((n, 2)), np.ones((m, 2)))
