import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdm_jax import basis, grouping, latents

SHAPE = (6, 10)
BASES = {
  'pixel': basis.pixel(SHAPE),
  'cosine': basis.cosine(SHAPE),
  'blur': basis.blur(SHAPE, 1.0, 'zero'),
}
named = pytest.mark.parametrize('base', BASES.values(), ids=BASES)


def noise(seed, batch=3):
  return jax.random.normal(jax.random.key(seed), (batch, *SHAPE, 2), jnp.float64)


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def changed(base, z, edited):
  """Which coefficients differ in any example, [*grid, c]."""
  difference = np.abs(base.analyze(edited) - base.analyze(z))
  return (difference > 1e-12).any(tuple(range(difference.ndim - 3)))


@named
@settings(deadline=None, max_examples=30)
@given(st.integers(0, 59), st.integers(1, 60))
def test_swap_exchanges_a_band_and_nothing_else(base, first, length):
  last = min(first + length, 60)
  z, other = noise(0), noise(1)
  chosen = latents.band(base, first, last)
  ours, theirs = latents.swap(base, z, other, chosen)
  inside = (np.asarray(base.ranks) >= first) & (np.asarray(base.ranks) < last)
  assert (changed(base, z, ours) == inside[..., None]).all()
  assert (changed(base, other, theirs) == inside[..., None]).all()
  np.testing.assert_allclose(ours + theirs, z + other, atol=1e-12)
  back, _ = latents.swap(base, ours, theirs, chosen)
  np.testing.assert_allclose(back, z, atol=1e-12)


@named
def test_groups_are_disjoint_and_add_up_to_the_image(base):
  bands = grouping.bands(base, (4, 20))
  z = noise(0)
  empty = jnp.zeros_like(z)
  parts = [latents.swap(base, empty, z, latents.groups(bands, [j]))[0] for j in range(3)]
  np.testing.assert_allclose(sum(parts), z, atol=1e-12)
  energies = [np.sum(part**2) for part in parts]
  np.testing.assert_allclose(sum(energies), np.sum(z**2))
  for i in range(3):
    for j in range(i):
      assert abs(np.sum(parts[i] * parts[j])) < 1e-9
  for j, (first, last) in enumerate(((0, 4), (4, 20), (20, 60))):
    assert (latents.groups(bands, [j]) == latents.band(base, first, last)).all()


@named
@pytest.mark.parametrize('spherical', [True, False])
def test_interpolation_ends_in_both_and_moves_its_band_alone(base, spherical):
  z, other, chosen = noise(0), noise(1), latents.band(base, 3, 30)
  steps = [
    latents.interpolate(base, z, other, weight, chosen, spherical) for weight in (0, 0.25, 0.5, 1)
  ]
  np.testing.assert_allclose(steps[0], z, atol=1e-12)
  np.testing.assert_allclose(steps[-1], latents.swap(base, z, other, chosen)[0], atol=1e-12)
  for step in steps[1:]:
    assert (changed(base, z, step) == np.asarray(chosen)).all()
  if not spherical:
    wanted = 0.75 * base.analyze(z) + 0.25 * base.analyze(other)
    np.testing.assert_allclose(
      base.analyze(steps[1]), jnp.where(chosen, wanted, base.analyze(z)), atol=1e-12
    )


def test_the_great_circle_keeps_the_norm_of_each_example():
  base = BASES['cosine']
  z, other, chosen = noise(0), noise(1), latents.band(base, 0, 20)

  def norm(c):
    return jnp.sqrt(jnp.sum(jnp.where(chosen, base.analyze(c), 0) ** 2, axis=(1, 2, 3)))

  # Of equal length, the vectors between them have it too, at an angle that grows evenly.
  scale = (norm(z) / norm(other))[:, None, None, None]
  path = [latents.interpolate(base, z, scale * other, w, chosen) for w in np.linspace(0, 1, 5)]
  for point in path:
    np.testing.assert_allclose(norm(point), norm(z))
  chords = [norm(b - a) for a, b in itertools.pairwise(path)]
  np.testing.assert_allclose(chords, np.broadcast_to(chords[0], (4, 3)))
  straight = latents.interpolate(base, z, scale * other, 0.5, chosen, spherical=False)
  assert (norm(straight) < 0.9 * norm(z)).all()


@pytest.mark.parametrize('factor', [1.0, 2.0, -1.0])
def test_parallel_latents_are_interpolated_along_the_line(factor):
  base = BASES['cosine']
  z, chosen = noise(0), latents.band(base, 0, 60)
  halfway = latents.interpolate(base, z, factor * z, 0.5, chosen)
  np.testing.assert_allclose(halfway, (1 + factor) / 2 * z, atol=1e-7)


@named
def test_traverse_sets_one_element(base):
  z, values = noise(0), np.array([-3.0, 0.0, 3.0])
  path = latents.traverse(base, z, 5, 1, values)
  assert path.shape == (3, *z.shape)
  place = np.argwhere(np.asarray(base.ranks) == 5)[0]
  found = base.analyze(path)[:, :, *place, 1]
  np.testing.assert_allclose(found, values[:, None] + np.zeros((3, 3)), atol=1e-12)
  alone = np.zeros((*SHAPE, 2), bool)
  alone[*place, 1] = True
  assert (changed(base, z, path) == alone).all()


@named
def test_resampling_and_keeping(base):
  z, fresh = noise(0), noise(1)
  chosen = latents.band(base, 10, 60)
  again = latents.resample(base, z, fresh, chosen)
  assert (changed(base, z, again) == np.asarray(chosen)).all()
  assert (changed(base, fresh, again) == ~np.asarray(chosen)).all()
  kept = base.analyze(latents.keep(base, z, 10))
  np.testing.assert_allclose(kept, jnp.where(chosen, 0, base.analyze(z)), atol=1e-12)
  np.testing.assert_allclose(latents.keep(base, z, 60), z, atol=1e-12)
  np.testing.assert_array_equal(latents.keep(base, z, 0), np.zeros_like(z))


def test_what_is_not_there_is_named():
  base, z = BASES['cosine'], noise(0)
  bands = grouping.bands(base, (4,))
  with pytest.raises(ValueError, match=r'groups \(0, 2\): there are 0 to 1'):
    latents.groups(bands, (0, 2))
  for first, last in ((5, 5), (-1, 3), (0, 61)):
    with pytest.raises(ValueError, match=r'band \['):
      latents.band(base, first, last)
  with pytest.raises(ValueError, match='channel 2'):
    latents.traverse(base, z, 0, 2, np.zeros(1))
  with pytest.raises(ValueError, match=r'band \[60, 61\)'):
    latents.traverse(base, z, 60, 0, np.zeros(1))
  for count in (-1, 61):
    with pytest.raises(ValueError, match=f'{count} components kept: there are 0 to 60'):
      latents.keep(base, z, count)


def test_edits_are_compiled_and_work_on_pairs():
  base = BASES['cosine']
  chosen = latents.band(base, 0, 5)
  pair, other = (noise(0), noise(1)), (noise(2), noise(3))
  edit = jax.jit(lambda z, y: latents.swap(base, z, y, chosen)[0])
  edited = jax.tree.map(edit, pair, other)
  for z, y, e in zip(pair, other, edited, strict=True):
    np.testing.assert_allclose(e, latents.swap(base, z, y, chosen)[0], atol=1e-12)
