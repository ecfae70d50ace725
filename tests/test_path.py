"""Paths: their mixing against Eq. 1 and 2, their velocity against derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax import path as paths
from tests.support import gaussian

pytestmark = pytest.mark.usefixtures('float64')

both = pytest.mark.parametrize('path', paths.PATHS.values(), ids=paths.PATHS)


@both
def test_signal_and_noise_are_those_of_the_paper(path):
  level = np.linspace(0, 1, 21)
  signal, noise = gaussian.mix(path.name, level)
  np.testing.assert_allclose(path.signal(level), signal, atol=1e-15)
  np.testing.assert_allclose(path.noise(level), noise, atol=1e-15)
  assert path.straight == bool(np.all(path.signal(level) + path.noise(level) == 1))


@both
def test_ends_are_exactly_noise_and_data(path):
  for wide in (False, True):
    with jax.enable_x64(wide):
      ends = jnp.asarray([0.0, 1.0])
      np.testing.assert_array_equal(path.signal(ends), [0, 1])
      np.testing.assert_array_equal(path.noise(ends), [1, 0])


@both
def test_velocity_is_the_derivative_per_unit_of_prediction(path):
  """x_t moves by (a' b - a b') / (a + b) per unit of alpha and of error in u = x - z."""
  level = np.linspace(0, 0.99, 12)
  (a, b), (da, db) = jax.jvp(
    lambda level: (path.signal(level), path.noise(level)), (level,), (np.ones(12),)
  )
  np.testing.assert_allclose(path.velocity(level), (da * b - a * db) / (a + b), rtol=1e-12)


def test_noise_is_accurate_where_the_data_is_nearly_clean():
  level = 1 - np.geomspace(1e-6, 1e-2, 20).astype(np.float32)
  with jax.enable_x64(False):
    noise = paths.variance_preserving.noise(jnp.asarray(level))
  np.testing.assert_allclose(noise, np.sqrt(1 - level.astype(np.float64) ** 2), rtol=3e-7)


def test_paths_are_found_by_name():
  assert {
    'linear': paths.linear,
    'variance_preserving': paths.variance_preserving,
  } == paths.PATHS
