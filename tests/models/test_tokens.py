"""Tokens hold every element once, within its group, cut from the group's own corner."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gdm_jax import basis, grouping
from gdm_jax.models.tokens import Elements, tokens


def of(labels, patch, ranks=None):
  labels = np.asarray(labels)
  return tokens(Elements(labels, np.ones(labels.shape), ranks), patch)


@given(
  arrays.arrays(np.int32, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 3)),
  st.booleans(),
)
def test_every_element_is_in_one_token_of_its_group(labels, ranked):
  labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
  ranks = np.random.default_rng(0).permutation(labels[..., 0].size) if ranked else None
  found = of(labels, 1, None if ranks is None else ranks.reshape(labels.shape[:-1]))
  np.testing.assert_array_equal(np.sort(found.slots[found.filled]), np.arange(labels.size))
  np.testing.assert_array_equal(found.slots.ravel()[found.places], np.arange(labels.size))
  for slots, filled, group in zip(found.slots, found.filled, found.groups, strict=True):
    assert set(labels.ravel()[slots[filled]]) == {group}
  assert np.all(np.diff(found.groups) >= 0)


def test_blocks_are_cut_into_patches_from_their_corner():
  found = of(grouping.blocks((6, 3), (2, 1)).of_elements, 2)
  assert len(found) == 8  # each block of 3 x 3 is a whole patch, two halves and a corner
  np.testing.assert_array_equal(found.slots[0], [0, 1, 3, 4])
  np.testing.assert_array_equal(found.slots[1], [2, 18, 5, 18])
  np.testing.assert_array_equal(found.slots[4], [9, 10, 12, 13])
  np.testing.assert_array_equal(found.centres[0], [0.25, 0.25])


def test_a_lattice_is_cut_as_the_small_image_that_it_is():
  found = of(grouping.cascade((8, 8), 2).of_elements, 2)
  np.testing.assert_array_equal(found.slots[found.groups == 0][0], [0, 2, 16, 18])
  # The rest has three of four positions in each field of 2 x 2.
  np.testing.assert_array_equal(found.slots[found.groups == 1][0], [64, 1, 8, 9])
  assert len(found) == 4 + 16


def test_channels_share_a_token_unless_groups_split_them():
  whole = of(np.zeros((2, 2, 3), int), 2)
  np.testing.assert_array_equal(whole.slots, [np.arange(12)])
  split = of(grouping.channels((2, 2), 3).of_elements, 2)
  assert len(split) == 3
  np.testing.assert_array_equal(split.slots[1], [12, 1, 12, 12, 4, 12, 12, 7, 12, 12, 10, 12])


def test_bands_are_cut_into_runs_of_ranks():
  cosine = basis.cosine((4, 4))
  found = of(grouping.bands(cosine, (6,)).of_elements, 2, np.asarray(cosine.ranks))
  order = np.argsort(np.ravel(cosine.ranks))
  np.testing.assert_array_equal(found.slots[0], order[:4])
  np.testing.assert_array_equal(found.slots[1], [*order[4:6], 16, 16])
  np.testing.assert_array_equal(found.slots[2], order[6:10])


def test_a_patch_that_no_group_holds_is_refused():
  with pytest.raises(ValueError, match='patch = 2: no group holds a whole patch, 4 positions'):
    of(grouping.elements((4, 4)).of_elements, 2)
  assert len(of(grouping.elements((4, 4)).of_elements, 1)) == 16
