"""The MLP has DDPM++'s calling convention on any grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gdm_jax.models.mlp import MLP


@pytest.mark.parametrize('grid', [(2,), (3, 2), (5,)])
def test_output_is_on_the_grid_of_the_input(grid):
  model = MLP(out_channels=3, width=16, depth=2)
  x = jax.random.normal(jax.random.key(0), (4, *grid, 2))
  y, _ = model.init_with_output(jax.random.key(1), x, jnp.linspace(0, 1000, 4))
  assert y.shape == (4, *grid, 3)


def test_every_input_changes_the_output_of_its_example():
  model = MLP(out_channels=1, width=16, depth=2, num_classes=3, augment_dim=2)
  args = [jnp.ones((2, 2, 1)), jnp.full(2, 9.0), jnp.zeros((2, 3)), jnp.zeros((2, 2))]
  plain, variables = model.init_with_output(jax.random.key(0), *args)
  for i, value in enumerate(args):
    changed = model.apply(variables, *args[:i], value.at[0].add(1), *args[i + 1 :])
    assert np.abs(changed[0] - plain[0]).max() > 1e-3, i
    np.testing.assert_allclose(changed[1], plain[1], atol=1e-6)
  np.testing.assert_array_equal(model.apply(variables, *args[:2], train=True), plain)


def test_dtypes_follow_the_convention():
  x, noise_label = jnp.ones((2, 2, 1)), jnp.array([1.0, 900.0])
  half = MLP(1, width=16, dtype=jnp.bfloat16)
  y, variables = half.init_with_output(jax.random.key(0), x, noise_label)
  assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  assert y.dtype == jnp.float32
  exact = MLP(1, width=16).apply(variables, x, noise_label)
  np.testing.assert_allclose(y, exact, atol=0.05 * np.abs(exact).max())
  with jax.enable_x64(True):
    wide = MLP(1, width=16).apply(variables, np.ones((2, 2, 1)), np.array([1.0, 900.0]))
    assert wide.dtype == jnp.float64
  np.testing.assert_allclose(wide, exact, atol=1e-4)


def test_label_of_another_width_is_refused():
  with pytest.raises(ValueError, match=r'augment_label has shape \(2, 4\)'):
    MLP(1).init(jax.random.key(0), jnp.ones((2, 2, 1)), jnp.ones(2), None, jnp.zeros((2, 4)))
