"""Bases against SciPy's DCT and against dense blur matrices built here."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import scipy.linalg

from gdm_jax import basis as bases
from tests.support import gaussian

pytestmark = pytest.mark.usefixtures('float64')

BASES = {
  'pixel': bases.pixel,
  'cosine': bases.cosine,
  'reflect': lambda shape: bases.blur(shape, 1.1, 'reflect'),
  'zero': lambda shape: bases.blur(shape, 0.9, 'zero'),
}


def random(*shape):
  return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize('make', BASES.values(), ids=BASES)
@pytest.mark.parametrize('shape', [(12, 20), (7,), (2, 3, 4)])
def test_bases_are_orthogonal_and_rank_every_coefficient(make, shape):
  basis = make(shape)
  assert basis.shape == basis.ranks.shape == shape
  assert basis.ranks.dtype == np.int32
  np.testing.assert_array_equal(np.sort(basis.ranks, axis=None), np.arange(np.prod(shape)))
  u = gaussian.matrix(basis)
  np.testing.assert_allclose(u.T @ u, np.eye(len(u)), atol=1e-12)
  x = random(*shape, 1)
  np.testing.assert_allclose(basis.analyze(x).ravel(), u.T @ x.ravel(), atol=1e-12)
  assert basis.analyze(x).dtype == np.float64


@pytest.mark.parametrize('make', BASES.values(), ids=BASES)
def test_leading_axes_and_channels_are_kept_apart(make):
  basis, x = make((3, 4)), random(2, 5, 3, 4, 3)
  together = basis.analyze(x)
  assert together.shape == x.shape
  for i, j, c in [(0, 0, 0), (1, 4, 2), (0, 3, 1)]:
    alone = basis.analyze(x[i, j, :, :, c : c + 1])
    np.testing.assert_allclose(together[i, j, :, :, c : c + 1], alone, atol=1e-12)
  np.testing.assert_allclose(basis.synthesize(together), x, atol=1e-12)


@pytest.mark.parametrize('make', BASES.values(), ids=BASES)
def test_float32_keeps_the_data_at_64_by_64(make):
  with jax.enable_x64(False):
    basis = make((64, 64))
    x = random(1, 64, 64, 1).astype(np.float32)
    coefficients = basis.analyze(x)
    assert coefficients.dtype == np.float32
    assert np.max(np.abs(basis.synthesize(coefficients) - x)) < 5e-6
    energy = np.sum(np.asarray(coefficients, np.float64) ** 2) / np.sum(x.astype(np.float64) ** 2)
    assert abs(energy - 1) < 1e-6


@pytest.fixture(scope='module')
def full_size():
  """Bases of the 256 x 256 configs, and a batch for them."""
  shape = (256, 256)
  made = {'cosine': bases.cosine(shape), 'reflect': bases.blur(shape, 1.0, 'reflect')}
  return {**made, 'zero': bases.blur(shape, 1.0, 'zero')}, random(2, *shape, 3)


@pytest.mark.parametrize('name', ['cosine', 'reflect', 'zero'])
def test_full_size_in_float32(full_size, name):
  basis, x = full_size[0][name], full_size[1]
  with jax.enable_x64(False):
    for factor in basis.factors:
      u = jnp.asarray(factor, jnp.float32)
      gram = jnp.matmul(u.T, u, precision='highest')
      assert np.abs(np.asarray(gram) - np.eye(256)).max() < 1e-6
    np.testing.assert_array_equal(np.sort(basis.ranks, axis=None), np.arange(256**2))
    x = jnp.asarray(x, jnp.float32)
    program = jax.jit(lambda x: basis.synthesize(basis.analyze(x))).lower(x).compile()
    np.testing.assert_allclose(program(x), x, atol=5e-6)
    # Some copies of the batch; a dense U would be 16 GiB.
    assert program.memory_analysis().temp_size_in_bytes < 8 * x.nbytes
    if name == 'cosine':
      exact = scipy.fft.dctn(np.asarray(x, np.float64), axes=(1, 2), norm='ortho')
      np.testing.assert_allclose(basis.analyze(x), exact, atol=1e-6 * np.abs(exact).max())


def test_ranks_mean_the_same_everywhere(full_size):
  # A trained model's bands are ranks: whatever computes them must give these.
  digests = {
    name: zlib.crc32(basis.ranks.astype('<i4').tobytes()) for name, basis in full_size[0].items()
  }
  assert digests == {'cosine': 0x4382ED78, 'reflect': 0x6A706C99, 'zero': 0x33871D7E}
  # Nor do they hang on the last digits of the eigenvalues, in which libraries differ.
  blur = scipy.linalg.toeplitz(np.exp(-0.5 * np.arange(256) ** 2.0))
  noise = np.random.default_rng(0).normal(size=256)
  logs = np.log(np.linalg.eigvalsh(blur)[::-1]) + 1e-13 * noise
  keys = -np.round(logs[:, None] + logs, 9).ravel()
  places = np.argsort(keys, kind='stable')
  np.testing.assert_array_equal(full_size[0]['zero'].ranks.ravel()[places], np.arange(256**2))


def test_pixel_basis_is_the_identity():
  basis, x = bases.pixel((3, 4)), random(2, 3, 4, 1)
  np.testing.assert_array_equal(basis.analyze(x), x)
  np.testing.assert_array_equal(basis.synthesize(x), x)
  np.testing.assert_array_equal(basis.ranks, np.arange(12).reshape(3, 4))


@pytest.mark.parametrize('shape', [(12, 20), (9,), (4, 3, 5)])
def test_cosine_is_the_orthonormal_dct(shape):
  basis, x = bases.cosine(shape), random(*shape)
  np.testing.assert_allclose(
    basis.analyze(x[..., None])[..., 0], scipy.fft.dctn(x, norm='ortho'), atol=1e-12
  )
  np.testing.assert_allclose(
    basis.synthesize(x[..., None])[..., 0], scipy.fft.idctn(x, norm='ortho'), atol=1e-12
  )


@pytest.mark.parametrize('shape', [(12, 20), (8, 8), (4, 3, 5)])
def test_cosine_ranks_by_frequency_then_raster_order(shape):
  # Integers in units of 1 / prod(shape)^2, so that equal frequencies are equal.
  size = int(np.prod(shape))
  places = list(np.ndindex(shape))
  key = {p: sum((i * (size // n)) ** 2 for i, n in zip(p, shape, strict=True)) for p in places}
  expected = sorted(places, key=lambda p: (key[p], p))
  ranks = bases.cosine(shape).ranks
  assert [ranks[p] for p in expected] == list(range(size))


def dense_blur(n, sigma, boundary):
  """The matrix of a sampled Gaussian on n positions, with what lies outside mirrored or zero."""
  positions = np.arange(n)
  if boundary == 'zero':
    return scipy.linalg.toeplitz(np.exp(-0.5 * (positions / sigma) ** 2))
  matrix = np.zeros((n, n))
  reach = int(np.ceil(12 * sigma))
  for i in positions:
    for offset in range(-reach, reach + 1):
      j = (i + offset) % (2 * n)  # ... 1 0 | 0 1 ... n-1 | n-1 ... 0 | 0 ...
      matrix[i, min(j, 2 * n - 1 - j)] += np.exp(-0.5 * (offset / sigma) ** 2)
  return matrix


@pytest.mark.parametrize('boundary', ['reflect', 'zero'])
@pytest.mark.parametrize(
  ('shape', 'sigma'), [((12, 20), 1.0), ((6,), 0.5), ((7, 7), 1.3), ((28, 28), 0.4)]
)
def test_blur_diagonalises_the_dense_blur_in_descending_order(shape, sigma, boundary):
  basis = bases.blur(shape, sigma, boundary)
  dense = np.ones((1, 1))
  for n in shape:
    dense = np.kron(dense, dense_blur(n, sigma, boundary))
  u = np.asarray(gaussian.matrix(basis))
  np.testing.assert_allclose(u.T @ u, np.eye(len(u)), atol=1e-12)
  diagonal = u.T @ dense @ u
  eigenvalues = np.diagonal(diagonal)
  np.testing.assert_allclose(diagonal, np.diag(eigenvalues), atol=1e-11 * eigenvalues.max())

  by_rank = eigenvalues[np.argsort(basis.ranks, axis=None)]
  assert np.all(np.diff(by_rank) < 1e-12 * by_rank.max())
  np.testing.assert_allclose(by_rank, np.linalg.eigvalsh(dense)[::-1], atol=1e-11 * by_rank.max())


def test_the_default_blur_is_that_of_the_papers_reference():
  found, expected = bases.blur((5, 8)), bases.blur((5, 8), 0.4, 'zero')
  np.testing.assert_array_equal(found.ranks, expected.ranks)
  for a, b in zip(found.factors, expected.factors, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('boundary', ['reflect', 'zero'])
def test_equal_eigenvalues_keep_the_raster_order(boundary):
  ranks = bases.blur((9, 9), 1.2, boundary).ranks
  i, j = np.triu_indices(9, 1)
  np.testing.assert_array_equal(ranks[j, i], ranks[i, j] + 1)


@pytest.mark.parametrize('sigma', [0.1, 1.0, 5.0])
def test_reflected_blur_ranks_every_axis_by_frequency(sigma):
  ranks = bases.blur((6, 16), sigma, 'reflect').ranks
  assert np.all(np.diff(ranks, axis=0) > 0)
  assert np.all(np.diff(ranks, axis=1) > 0)


@pytest.mark.parametrize('make', [bases.cosine, BASES['reflect']], ids=['cosine', 'reflect'])
def test_flat_image_is_the_one_coefficient_of_rank_zero(make):
  basis = make((12, 20))
  coefficients = basis.analyze(np.ones((12, 20, 1)))[..., 0]
  assert basis.ranks[0, 0] == 0
  expected = np.zeros((12, 20))
  expected[0, 0] = np.sqrt(240)
  np.testing.assert_allclose(coefficients, expected, atol=1e-12)


def test_lowest_mode_of_the_zero_boundary_is_a_half_sine_in_shape():
  basis = bases.blur((12, 20), 1.0, 'zero')
  place = jnp.asarray(basis.ranks == 0, float)[..., None]
  mode = np.asarray(basis.synthesize(place))[..., 0]
  assert np.all(mode > 0) or np.all(mode < 0)
  mode = np.abs(mode)
  np.testing.assert_allclose(mode, mode[::-1, ::-1], atol=1e-12)
  for axis, half in [(0, 6), (1, 10)]:
    rising = np.take(mode, range(half), axis)
    assert np.all(np.diff(rising, axis=axis) > 0)
  half_sine = np.sin(np.pi * np.arange(1, 21) / 21)
  middle = mode[6] / np.linalg.norm(mode[6])
  assert middle @ half_sine / np.linalg.norm(half_sine) > 0.99


def test_bases_are_arguments_of_compiled_functions():
  analyze = jax.jit(lambda basis, x: basis.analyze(x))
  for make in BASES.values():
    basis, x = make((3, 4)), random(2, 3, 4, 1)
    np.testing.assert_allclose(analyze(basis, x), basis.analyze(x), atol=1e-12)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (((4, 4), 0.0), 'sigma = 0.0 must be positive'),
    (((4, 4), float('nan')), 'sigma = nan must be positive'),
    (((4, 4), 1.0, 'wrap'), "boundary = 'wrap' must be 'reflect' or 'zero'"),
    (((4, 64), 4.0, 'zero'), 'sigma = 4.0 with a zero boundary on an axis of 64'),
  ],
)
def test_misuse_is_named_with_its_value(arguments, message):
  with pytest.raises(ValueError, match=message):
    bases.blur(*arguments)
