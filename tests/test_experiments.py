"""The figures that experiments print."""

import numpy as np

from experiments import digits_distance


def test_frechet_distance_of_known_gaussians():
  rng = np.random.default_rng(0)
  a = rng.standard_normal((500, 3))
  a = np.linalg.solve(np.linalg.cholesky(np.cov(a.T)), (a - a.mean(0)).T).T  # exactly N(0, I)
  scale, shift = np.array([1.0, 2.0, 0.5]), np.array([0.0, 1.0, 3.0])
  assert abs(digits_distance.frechet_distance(a, a)) < 1e-9
  wanted = np.sum(shift**2) + np.sum((scale - 1) ** 2)
  np.testing.assert_allclose(digits_distance.frechet_distance(a, a * scale + shift), wanted)
