"""Which groups move when one varies, of a model that obeys Proposition 3.3 exactly."""

import numpy as np
import pandas as pd
from jax import numpy as jnp

from experiments import group_influence
from gdm_jax import basis

TOP = jnp.array([[[True], [True]], [[False], [False]]])


class Exact:
  """A subject of two groups: b is generated first, and a follows it by half."""

  basis = basis.pixel((2, 2))
  order = (1, 0)

  def __init__(self):
    self.masks = {'a': TOP, 'b': ~TOP}

  def noise(self, first, count):
    return np.random.default_rng(first).normal(size=(count, 2, 2, 1))

  def decode(self, z):
    x = np.array(z)
    x[:, 0] += 0.5 * x[:, 1]
    return x

  def measure(self, function, cells):
    return pd.DataFrame([{**cell, **function(**cell)} for cell in cells])


def test_earlier_groups_do_not_move_and_later_ones_follow():
  relative = group_influence.matrix(group_influence.measure(Exact(), 300, 4))
  assert list(relative) == list(relative.index) == ['b', 'a']
  np.testing.assert_allclose(relative.loc['a', 'b'], 0, atol=1e-6)
  # The variance of a is 1 of its own latent and 1/4 of b's.
  expected = [[1, (0.25 / 1.25) ** 0.5], [0, (1 / 1.25) ** 0.5]]
  np.testing.assert_allclose(relative, expected, atol=0.05)


def test_the_findings_tell_earlier_from_later_groups():
  rows = group_influence.measure(Exact(), 20, 3)
  _, findings = group_influence.summarise(rows)
  assert 'Groups generated earlier than the varied one move by 0.000' in findings[1]
