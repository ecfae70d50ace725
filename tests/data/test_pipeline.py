import json

import numpy as np
import pytest

from gdm_jax.data import base, pipeline, sources


def numbered(n, grid=(2, 3)):
  """n different images: x holds 6 different values per image, label the index."""
  x = np.arange(n * np.prod(grid), dtype=np.float32).reshape(n, *grid, 1)
  return base.ArraySource(x, np.arange(n, dtype=np.int32), n)


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def joined(batches):
  return {key: np.concatenate([batch[key] for batch in batches]) for key in ('x', 'label')}


def stream(source, count, *args, **kwargs):
  """The first `count` batches, joined."""
  return joined(take(pipeline.batches(source, *args, **kwargs), count))


def assert_same(found, expected):
  for key in ('x', 'label'):
    assert found[key].dtype == expected[key].dtype
    np.testing.assert_array_equal(found[key], expected[key])


def mirrored(source, batch):
  """Which images of a batch are the mirrored ones; each must be itself or its mirror image."""
  original = source.x[batch['label']]
  same = (batch['x'] == original).all((1, 2, 3))
  flipped = (batch['x'] == original[:, :, ::-1]).all((1, 2, 3))
  assert (same ^ flipped).all()
  return flipped


def test_epochs_are_different_permutations():
  source = numbered(20)
  epochs = stream(source, 25, 4, seed=0)['label'].reshape(5, 20)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(20), (5, 1)))
  assert len(np.unique(epochs, axis=0)) == 5
  assert (epochs != np.arange(20)).any(1).all()


def test_image_and_label_stay_together():
  source = numbered(7)
  batch = stream(source, 5, 4, seed=1)
  np.testing.assert_array_equal(batch['x'], source.x[batch['label']])
  assert batch['x'].shape == (20, 2, 3, 1)


def test_a_seed_is_a_stream():
  source = numbered(20)
  first, again, other = (stream(source, 10, 4, seed, flip=True) for seed in (3, 3, 4))
  assert_same(first, again)
  assert (first['label'] != other['label']).any()
  assert (mirrored(source, first) != mirrored(source, other)).any()
  # Neither may one seed's stream be another's, an epoch later.
  assert (first['label'][20:40] != other['label'][:20]).any()


@pytest.mark.parametrize('process_count', [2, 4])
def test_global_batches_do_not_depend_on_the_process_count(process_count):
  source = numbered(13)
  single = pipeline.batches(source, 8, 0, flip=True)
  shares = [
    pipeline.batches(source, 8, 0, flip=True, process_index=p, process_count=process_count)
    for p in range(process_count)
  ]
  for _ in range(6):
    parts = [next(share) for share in shares]
    assert all(len(part['label']) == 8 // process_count for part in parts)
    assert_same(joined(parts), next(single))


def test_examples_and_flips_do_not_depend_on_the_batch_size():
  source = numbered(13)
  assert_same(stream(source, 6, 4, 0, flip=True), stream(source, 2, 12, 0, flip=True))


@pytest.mark.parametrize('process_count', [1, 2])
def test_state_restores_the_stream(process_count):
  source = numbered(13)
  iterator = pipeline.batches(source, 8, 0, flip=True)
  take(iterator, 5)
  state = json.loads(json.dumps(iterator.get_state()))
  expected = take(iterator, 4)
  restored = []
  for p in range(process_count):
    share = pipeline.batches(source, 8, 0, flip=True, process_index=p, process_count=process_count)
    take(share, 2)  # so that wrong batches are already in the prefetch buffer
    share.set_state(state)
    assert share.get_state() == state
    restored.append(take(share, 4))
  for batch, *parts in zip(expected, *restored, strict=True):
    assert_same(joined(parts), batch)


def test_state_is_the_same_on_every_process():
  states = []
  for p, count in ((0, 1), (0, 2), (1, 2)):
    iterator = pipeline.batches(numbered(13), 8, 0, process_index=p, process_count=count)
    take(iterator, 3)
    states.append(iterator.get_state())
  assert states[0] == states[1] == states[2]
  assert states[0] != pipeline.batches(numbered(13), 8, 0).get_state()


def test_half_of_the_images_are_mirrored():
  source = numbered(50)
  flips = mirrored(source, stream(source, 40, 100, 0, flip=True))
  assert 0.47 < flips.mean() < 0.53  # 4,000 coins: four standard deviations are 0.032
  assert abs(np.corrcoef(flips[1:], flips[:-1])[0, 1]) < 0.07
  assert not mirrored(source, stream(source, 4, 100, 0)).any()


def test_flips_are_redrawn_every_epoch():
  source = numbered(50)
  batch = stream(source, 2, 50, 0, flip=True)
  flips = mirrored(source, batch).reshape(2, 50)
  order = np.argsort(batch['label'].reshape(2, 50))
  assert (flips[0][order[0]] != flips[1][order[1]]).any()


def test_a_flip_leaves_the_source_alone():
  source = numbered(8)
  before = source.x.copy()
  stream(source, 4, 8, 0, flip=True)
  np.testing.assert_array_equal(source.x, before)


def test_a_batch_may_be_larger_than_the_data_set():
  source = numbered(5)
  labels = stream(source, 3, 12, 0)['label']
  np.testing.assert_array_equal(np.sort(labels[:35].reshape(7, 5)), np.tile(np.arange(5), (7, 1)))
  assert len(labels) == 36


def test_errors():
  with pytest.raises(ValueError, match=r'batch_size=10 .* process_count=4'):
    pipeline.batches(numbered(5), 10, 0, process_count=4)
  with pytest.raises(ValueError, match='batch_size=0 '):
    pipeline.batches(numbered(5), 0, 0)
  with pytest.raises(ValueError, match=r'flip=True needs images .* not \(2, 1\)'):
    pipeline.batches(sources.load('mixture', 'train', (2, 1)), 4, 0, flip=True)
