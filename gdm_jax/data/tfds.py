"""Image data sets that TFDS has prepared as ArrayRecord, read without TensorFlow."""

import functools
import os

import numpy as np
import tqdm
from jaxtyping import Int

from gdm_jax.data.base import Batch, LazySource, require_shape
from gdm_jax.runtime.errors import DataError

CHUNK = 1024  # records decoded between two steps of the progress bar


def open_tfds(name: str, split: str, shape: tuple[int, ...], data_dir: str | None) -> LazySource:
  """The split of 'tfds:NAME', such as 'tfds:cifar10' or 'tfds:imagenet_resized/64x64'.

  data_dir: where TFDS looks; None is TFDS's default, which TFDS_DATA_DIR sets. Raises DataError.
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import read_only_builder

  dataset = name.removeprefix('tfds:')
  directory = os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR)
  build = (
    f'pip install tensorflow-cpu && '
    f'tfds build {dataset} --file_format=array_record --data_dir={directory}'
  )
  try:
    # Unlike tfds.builder, this needs no code for the data set and accepts older versions of it.
    builder = read_only_builder.builder_from_files(dataset, data_dir=directory)
  except (tfds.core.DatasetNotFoundError, ValueError) as error:
    raise DataError(
      f'data.name={name!r}: no such prepared data set in {directory}. Set TFDS_DATA_DIR or '
      f'--config.machine.data_dir to where it is, or prepare it:\n  {build}'
    ) from error

  features = builder.info.features
  if 'image' not in features or features['image'].np_dtype != np.uint8:
    raise DataError(f"data.name={name!r} has no feature 'image' of uint8, only {list(features)}")
  try:
    data = builder.as_data_source(split)
  except NotImplementedError as error:
    raise DataError(
      f'data.name={name!r}: {builder.data_path} holds {builder.info.file_format.value} files, '
      f'which have no random access. Prepare it again:\n  {build} --overwrite'
    ) from error
  except ValueError as error:
    raise DataError(
      f'data.split={split!r} is no split of {name}; it has {", ".join(builder.info.splits)}, '
      f'and parts such as {next(iter(builder.info.splits))}[:90%]'
    ) from error

  num_classes = getattr(features['label'], 'num_classes', 0) if 'label' in features else 0
  read_records = functools.partial(read, name, data, shape, num_classes > 0)

  def check(records):
    read_records(records[:1], False)  # the first image has the shape of all

  return LazySource(np.arange(len(data)), shape, num_classes, read_records, check)


def read(
  name: str,
  data,
  shape: tuple[int, ...],
  labelled: bool,
  records: Int[np.ndarray, ' b'],
  progress: bool,
) -> Batch:
  """The examples of some records. Raises DataError if an image has another shape."""
  x, label = np.empty((len(records), *shape), np.uint8), np.zeros(len(records), np.int32)
  disable = None if progress else True  # None: unless stderr is a terminal
  with tqdm.tqdm(total=len(records), desc=f'decode {name}', disable=disable, delay=2) as bar:
    for first in range(0, len(records), CHUNK):
      # One read of many records is twice as fast as many reads of one. Threads would not help: at
      # 32 x 32 most of the time is spent in Python, under its lock.
      examples = data.__getitems__(records[first : first + CHUNK].tolist())
      for i, example in enumerate(examples, first):
        require_shape(name, example['image'].shape, shape)
        x[i] = example['image']
        label[i] = example['label'] if labelled else 0
      bar.update(len(examples))
  return {'x': x, 'label': label}
