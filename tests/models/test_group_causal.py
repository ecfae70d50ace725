"""The group-causal transformer: who sees whom, and what it gives before it has learnt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax import basis, grouping, path
from gdm_jax.process import Process
from tests.support import causal

GRID = (4, 6)
BLOCKS = Process(grouping.blocks(GRID, (2, 3)), basis.pixel(GRID))
COSINE = basis.cosine(GRID)
BANDS = Process(grouping.bands(COSINE, (4, 10)), COSINE)


def noise(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def model(process, **options):
  found = causal.predictor(process, patch=2, **options)
  return found, causal.random_params(found)


@pytest.mark.parametrize('process', [BLOCKS, BANDS], ids=['blocks', 'bands'])
def test_groups_not_started_change_nothing_bit_for_bit(process):
  """Proposition 3.3, for random parameters."""
  predictor, params = model(process)
  k = process.grouping.num_groups
  alpha = np.tile([1, 0.3, *[0] * (k - 2)], (2, 1)).astype(np.float32)
  levels = process.coefficient_map(alpha)

  @jax.jit
  def predict(y):  # coefficients to coefficients: U rounds
    return predictor.network.apply(
      {'params': params}, jnp.concatenate([y, levels], -1), jnp.zeros(2)
    )

  def of(flags):
    return np.broadcast_to(process.coefficient_map(flags), (*GRID, 1))

  y, other = noise(2, *GRID, 1), noise(2, *GRID, 1, seed=1)
  found, changed = predict(y), predict(np.where(of(np.arange(k) > 1), other, y))
  started = of(np.arange(k) < 2)
  np.testing.assert_array_equal(found[:, started], changed[:, started])
  assert np.abs(found - changed)[:, ~started].min() > 0
  # But the known group does, and the group's own noise.
  for group in (0, 1):
    changed = predict(np.where(of(np.arange(k) == group), other, y))
    assert np.abs(found - changed)[:, of(np.arange(k) == 1)].max() > 1e-3


def test_groups_under_way_see_one_another_and_known_ones_are_returned():
  predictor, params = model(BLOCKS)
  predict, x = jax.jit(predictor.bind(params)), noise(1, *GRID, 1)
  alpha = np.array([[1, 0.3, 0.6, 0, 0, 0]], np.float32)
  jacobian = jax.jacobian(predict)(x, alpha).reshape(24, 24)
  labels = BLOCKS.grouping.labels.ravel()

  def influence(on, of):
    return np.abs(jacobian[labels == on][:, labels == of]).max()

  sees = np.array([[influence(g, h) > 0 for h in range(6)] for g in range(6)])
  expected = np.eye(6, dtype=bool)
  expected[1:, 0] = True
  expected[1, 2] = expected[2, 1] = True
  np.testing.assert_array_equal(sees, expected)
  np.testing.assert_array_equal(predict(x, alpha)[0, :2, :2], x[0, :2, :2])


@pytest.mark.parametrize('curve', [path.linear, path.variance_preserving])
def test_before_training_it_is_optimal_for_independent_elements(curve):
  process = Process(BANDS.grouping, COSINE, curve)
  predictor = causal.predictor(process, patch=2)
  scale = predictor.network.elements.scale
  np.testing.assert_allclose(np.mean(scale**2), 0.25)
  level = np.array([0.7, 0.4, 0.0], np.float32)
  a, b = (v[process.grouping.labels][..., None] for v in (curve.signal(level), curve.noise(level)))
  y = noise(1, *GRID, 1)
  u = predictor(predictor.init(jax.random.key(0)), process.basis.synthesize(y), level[None])
  # E[x - z | a x + b z] of x ~ N(0, scale^2).
  expected = (a * scale**2 - b) / (a**2 * scale**2 + b**2) * y
  np.testing.assert_allclose(process.basis.analyze(u), expected, atol=1e-5)


def test_labels_dtype_and_dropout():
  predictor, params = model(BLOCKS, num_classes=3, dropout=0.5)
  x, alpha = noise(2, *GRID, 1), np.full((2, 6), 0.5, np.float32)
  plain = predictor(params, x, alpha, np.array([0, 2]))
  assert np.abs(plain - predictor(params, x, alpha, np.array([1, 2])))[0].max() > 1e-4
  dropped = predictor(params, x, alpha, train=True, rngs={'dropout': jax.random.key(0)})
  assert np.abs(dropped - predictor(params, x, alpha)).max() > 1e-3
  half, _ = model(BLOCKS, num_classes=3, dtype=jnp.bfloat16)
  rough = half(params, x, alpha, np.array([0, 2]))
  assert rough.dtype == jnp.float32
  np.testing.assert_allclose(rough, plain, atol=0.1 * np.abs(plain).max())


def test_heads_that_do_not_divide_the_width_are_refused():
  with pytest.raises(ValueError, match='heads = 3: width = 16 must be a multiple of twice it'):
    causal.predictor(BLOCKS, heads=3).init(jax.random.key(0))
