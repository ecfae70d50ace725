"""Groupings: every strategy is a partition with the paper's cells, and misuse is explained."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdm_jax import basis, grouping

law = settings(deadline=None, max_examples=30, derandomize=True)
grids = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)


def assert_partition(groups, shape):
  assert groups.labels.dtype == np.int32
  assert groups.shape == groups.labels.shape == shape
  np.testing.assert_array_equal(np.unique(groups.labels), np.arange(groups.num_groups))


@law
@given(grids, st.data())
def test_bands_of_an_axis_are_contiguous_and_nearly_equal(shape, data):
  axis = data.draw(st.integers(0, min(1, len(shape) - 1)))
  k = data.draw(st.integers(1, shape[axis]))
  groups = (grouping.rows, grouping.columns)[axis](shape, k)
  assert_partition(groups, shape)
  lines = np.moveaxis(groups.labels, axis, 0).reshape(shape[axis], -1)
  assert np.all(lines == lines[:, :1])
  line = lines[:, 0]
  assert np.all(np.diff(line) >= 0)
  sizes = np.bincount(line)
  assert sizes.max() - sizes.min() <= 1


@law
@given(grids, st.data())
def test_blocks_are_the_product_of_bands_in_raster_order(shape, data):
  parts = tuple(data.draw(st.integers(1, n)) for n in shape)
  groups = grouping.blocks(shape, parts)
  assert_partition(groups, shape)
  for place in np.ndindex(shape):
    block = [grouping.rows((n,), k).labels[i] for n, k, i in zip(shape, parts, place, strict=True)]
    number = 0
    for k, i in zip(parts, block, strict=True):
      number = number * k + i
    assert groups.labels[place] == number


def test_sizes_of_the_papers_examples():
  columns = grouping.columns((32, 29), 12)
  np.testing.assert_array_equal(np.sort(np.bincount(columns.labels[0])), [2] * 7 + [3] * 5)
  blocks = grouping.blocks((12, 20), (3, 4))
  assert blocks.num_groups == 12
  np.testing.assert_array_equal(np.bincount(blocks.labels.ravel()), np.full(12, 20))
  np.testing.assert_array_equal(grouping.rows((7,), 3).labels, [0, 0, 0, 1, 1, 2, 2])
  np.testing.assert_array_equal(grouping.elements((2, 3)).labels, [[0, 1, 2], [3, 4, 5]])
  whole = grouping.whole((4, 4))
  assert whole.num_groups == 1
  assert_partition(whole, (4, 4))


@law
@given(grids, st.integers(1, 4))
def test_cascade_adds_the_positions_of_ever_finer_lattices(shape, k):
  if k > 1 and max(shape) <= 2 ** (k - 2):  # the two coarsest lattices are the same
    with pytest.raises(ValueError, match=f'k = {k} leaves groups empty'):
      grouping.cascade(shape, k)
    return
  groups = grouping.cascade(shape, k)
  assert_partition(groups, shape)
  for place in np.ndindex(shape):
    on = [j for j in range(k) if all(i % 2 ** (k - 1 - j) == 0 for i in place)]
    assert groups.labels[place] == min(on)


@pytest.mark.parametrize('edges', [(30, 100, 500), (1,), ()])
def test_bands_cut_the_ranks(edges):
  modes = basis.cosine((24, 30))
  groups = grouping.bands(modes, edges)
  assert_partition(groups, (24, 30))
  for band, (low, high) in enumerate(zip((0, *edges), (*edges, 720), strict=True)):
    np.testing.assert_array_equal(np.sort(modes.ranks[groups.labels == band]), np.arange(low, high))


@law
@given(grids, st.data())
def test_refinement_knows_the_old_group_of_every_new_one(shape, data):
  size = int(np.prod(shape))
  parts = []
  for _ in range(data.draw(st.integers(1, 3))):
    labels = data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    labels = np.unique(labels, return_inverse=True)[1].reshape(shape).astype(np.int32)
    parts.append(grouping.Grouping(labels, int(labels.max()) + 1))
  refined, indices = grouping.refine(*parts)
  assert_partition(refined, shape)
  assert indices.shape == (len(parts), refined.num_groups)
  for part, old in zip(parts, indices, strict=True):
    np.testing.assert_array_equal(old[refined.labels], part.labels)
  # As coarse as can be, and numbered lexicographically: no two new groups have the same old ones.
  columns = [tuple(column) for column in indices.T]
  assert columns == sorted(set(columns))


def test_refinement_of_one_grouping_is_itself():
  blocks = grouping.blocks((4, 6), (2, 3))
  refined, indices = grouping.refine(blocks)
  np.testing.assert_array_equal(refined.labels, blocks.labels)
  np.testing.assert_array_equal(indices, [np.arange(6)])


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: grouping.rows((4, 6), 5), '5 groups along axis 0 of length 4: must be 1 to 4'),
    (lambda: grouping.columns((4, 6), 7), '7 groups along axis 1 of length 6: must be 1 to 6'),
    (lambda: grouping.rows((4, 6), 0), '0 groups along axis 0 of length 4'),
    (lambda: grouping.columns((6,), 2), r'columns: shape \(6,\) has no second axis'),
    (lambda: grouping.blocks((4, 6), (2, 7)), '7 groups along axis 1 of length 6'),
    (lambda: grouping.blocks((4, 6), (2,)), r'blocks: \(2,\) must give one number per axis'),
    (lambda: grouping.cascade((4, 6), 0), 'k = 0 must be at least 1'),
    (lambda: grouping.bands(basis.pixel((2, 3)), (2, 2)), r'edges \(2, 2\) .* between 0 and 6'),
    (lambda: grouping.bands(basis.pixel((2, 3)), (3, 2)), r'edges \(3, 2\) .* ascend strictly'),
    (lambda: grouping.bands(basis.pixel((2, 3)), (0,)), r'edges \(0,\)'),
    (lambda: grouping.bands(basis.pixel((2, 3)), (6,)), r'edges \(6,\)'),
    (
      lambda: grouping.refine(grouping.whole((2, 3)), grouping.whole((3, 2))),
      r'refine: groupings of different grids \[\(2, 3\), \(3, 2\)\]',
    ),
  ],
)
def test_misuse_is_named_with_its_value(make, message):
  with pytest.raises(ValueError, match=message):
    make()
