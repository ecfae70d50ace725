"""Completion: the conditional distribution of closed forms, and known pixels to the bit."""

import jax
import numpy as np
import pytest

from gdm_jax import basis as bases
from gdm_jax import grouping, sampling, schedule
from gdm_jax import path as paths
from gdm_jax.process import Process
from tests.support import gaussian
from tests.support.gaussian import CASES, coarse_and_fine, data_of, largest, nonlinear, random

pytestmark = pytest.mark.usefixtures('float64')

COMPLETIONS = [
  ('blocks 4x4', paths.linear, [0, 2]),
  ('elements 5', paths.variance_preserving, [3]),
  ('zero blur 3x5', paths.linear, [0]),
]


@pytest.mark.parametrize(('name', 'path', 'groups'), COMPLETIONS)
def test_completion_follows_the_conditional_distribution(name, path, groups):
  case = CASES[name].over(path)
  data, process = data_of(case), case.process
  z = gaussian.probes(case.shape)
  known = np.random.default_rng(0).normal(size=(1, *case.shape, 1)) * np.ones_like(z)

  @jax.jit
  def run(tables):
    predict = gaussian.optimal(data, process)
    return jax.lax.map(
      lambda table: sampling.complete(predict, process, table, known, groups, z, 'heun'), tables
    )

  x = run(coarse_and_fine(case))
  u = np.asarray(gaussian.matrix(process.basis))
  given = np.isin(np.asarray(process.grouping.labels).ravel(), groups)
  in_basis = gaussian.Mixture(data.weights, data.means @ u, u.T @ data.covs @ u)
  values = u.T @ known[0].ravel()
  mean, cov = gaussian.conditional(in_basis, given, values[given])
  errors = []
  for images in x:
    offset, linear = gaussian.affine(images)
    np.testing.assert_allclose((u.T @ offset)[given], values[given], atol=1e-12)
    linear = u.T @ linear
    assert largest(linear[given]) < 1e-12
    rest = linear[~given]
    errors.append(np.concatenate([(u.T @ offset)[~given] - mean, (rest @ rest.T - cov).ravel()]))
  straight = path is paths.linear
  assert largest(errors[0]) < (2e-3 if straight else 5e-2)
  assert largest(errors[1]) < (0.35 if straight else 0.5) * largest(errors[0])


@pytest.mark.parametrize('wide', [False, True], ids=['float32', 'float64'])
@pytest.mark.parametrize('path', paths.PATHS.values(), ids=paths.PATHS)
def test_completion_leaves_known_pixels_bit_identical(path, wide):
  with jax.enable_x64(wide):
    process = Process(grouping.columns((3, 4), 3), bases.pixel((3, 4)), path)
    table = schedule.table(schedule.sequential((1, 2, 0)), 9)
    known, z = random(0, 2, 3, 4, 3), random(1, 2, 3, 4, 3)
    x = sampling.complete(nonlinear, process, table, known, [1, 2], z, 'heun')
    assert x.dtype == known.dtype == ('float64' if wide else 'float32')
    kept = np.isin(process.grouping.labels, [1, 2])
    np.testing.assert_array_equal(x[:, kept], known[:, kept])
    assert np.min(np.abs(x - z)[:, ~kept]) > 0

    # A traced table walks all rows to the same end.
    traced = jax.jit(
      lambda table: sampling.complete(nonlinear, process, table, known, [1, 2], z, 'heun')
    )(table)
    np.testing.assert_allclose(traced, x, rtol=1e-5)
    np.testing.assert_array_equal(traced[:, kept], known[:, kept])


def test_completion_refuses_groups_that_are_not_first():
  process = Process(grouping.columns((3, 4), 3), bases.pixel((3, 4)))
  table = schedule.table(schedule.sequential((1, 2, 0)), 9)
  x = random(0, 2, 3, 4, 1)
  for groups in [[2], [0, 1]]:
    with pytest.raises(ValueError, match=rf'groups \[{", ".join(map(str, groups))}\] are not the'):
      sampling.complete(nonlinear, process, table, x, groups, x)


def test_completion_of_nothing_and_of_everything():
  process = Process(grouping.columns((3, 4), 3), bases.pixel((3, 4)))
  table = schedule.table(schedule.sequential((1, 2, 0)), 9)
  known, z = random(0, 2, 3, 4, 1), random(1, 2, 3, 4, 1)
  everything = sampling.complete(nonlinear, process, table, known, [0, 1, 2], z)
  np.testing.assert_array_equal(everything, known)
  nothing = sampling.complete(nonlinear, process, table, known, [], z)
  np.testing.assert_array_equal(nothing, sampling.sample(nonlinear, process, table, z))
