"""An endless, shuffled, resumable stream of batches."""

import functools
import os
import sys

import grain
import numpy as np

from gdm_jax.data.base import Batch, Source


def batches(
  source: Source,
  batch_size: int,
  seed: int,
  *,
  flip: bool = False,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator[Batch]:
  """Reads a source epoch after epoch, each in another order.

  The stream of examples depends on `seed` and the source alone, and example i of it, mirrored
  or not, on `seed` and i. Process p reads rows [p * L, (p + 1) * L) of every global batch, where
  L = batch_size // process_count. A batch may span epochs.

  The iterator's state, `get_state()`, is a JSON value that counts global batches: it is the
  same on every process, and `set_state` takes it under any process count.

  Args:
    source: the examples.
    batch_size: of the global batch, in examples.
    seed: non-negative.
    flip: mirrors a random half of the images left to right.
    process_index: this process, p.
    process_count: the number of processes that share a global batch.

  Raises:
    ValueError: batch_size is not a positive multiple of process_count, or flip is set and the
      examples are not images.
  """
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(f'{batch_size=} must be a positive multiple of {process_count=}')
  if flip and len(source.shape) != 3:
    raise ValueError(f'flip=True needs images (height, width, channels), not {source.shape}')
  share = np.arange(batch_size).reshape(process_count, -1)[process_index]

  @functools.lru_cache(maxsize=2)
  def order(epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(len(source))

  def read(step: int) -> Batch:
    first = step * batch_size + int(share[0])
    epochs, places = np.divmod(step * batch_size + share, len(source))
    indices = np.concatenate([order(int(e))[places[epochs == e]] for e in np.unique(epochs)])
    batch = source[indices]
    if flip:
      mirrored = _coins(seed, first, len(share))
      batch['x'][mirrored] = batch['x'][mirrored][..., ::-1, :]
    return batch

  # The elements are whole batches: grain spends 25 us of Python on each element, which for
  # single examples would be more than the training step of a small network. Nor is grain's own
  # shuffle used: it orders epoch e + 1 of seed s as it orders epoch e of seed s + 1.
  threads = min(8, os.cpu_count() or 1)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
  return iter(grain.MapDataset.range(sys.maxsize).map(read).to_iter_dataset(options))


def _coins(seed: int, first: int, count: int) -> np.ndarray:
  """Fair coins number first, first + 1, ...: bool [count].

  Philox makes four words for every value of its counter; the first word of each is the coin, so
  that a coin depends on its number and not on where a batch starts.
  """
  words = np.random.Philox(key=seed, counter=first).random_raw(4 * count)
  return words[::4] % 2 == 1
