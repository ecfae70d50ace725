"""Batches of one size: laws of the indices."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gdm_jax.runtime.batching import padded, padded_batches, round_up

counts, sizes, devices = st.integers(0, 50), st.integers(1, 20), st.integers(1, 8)


@given(counts, sizes, devices)
def test_every_index_is_new_once_in_batches_of_one_size(count, batch, devices):
  batches = list(padded_batches(count, batch, devices))
  assert len({len(indices) for indices, _ in batches}) <= 1
  new = [indices[:valid] for indices, valid in batches]
  assert np.concatenate([[], *new]).tolist() == list(range(count))
  for indices, valid in batches:
    assert len(indices) % devices == 0
    assert len(indices) < batch + devices
    assert 0 < valid <= len(indices)
    assert set(indices) == set(indices[:valid])


@given(st.integers(1, 50), devices)
def test_padding_repeats_from_the_start(count, multiple):
  size = round_up(count, multiple)
  assert size % multiple == 0
  assert 0 <= size - count < multiple
  assert padded(count, size).tolist() == [i % count for i in range(size)]
