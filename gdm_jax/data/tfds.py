"""Image data sets that TFDS has prepared as ArrayRecord, read without TensorFlow."""

import functools
import os

import numpy as np
import tqdm
from jaxtyping import Int

from gdm_jax.data.base import Batch, LazySource, require_shape
from gdm_jax.data.contents import digest
from gdm_jax.runtime.errors import DataError

CHUNK = 1024  # records decoded between two steps of the progress bar


def open_tfds(name: str, split: str, shape: tuple[int, ...], data_dir: str | None) -> LazySource:
  """The split of 'tfds:NAME', such as 'tfds:cifar10' or 'tfds:imagenet_resized/64x64'.

  data_dir: where TFDS looks; None is TFDS's default, which TFDS_DATA_DIR sets. Raises DataError.
  """
  builder, info, build = _prepared(name, data_dir)
  features = info.features
  if 'image' not in features or features['image'].np_dtype != np.uint8:
    raise DataError(f"data.name={name!r} has no feature 'image' of uint8, only {list(features)}")
  try:
    data, files = builder.as_data_source(split), info.splits[split].file_instructions
  except NotImplementedError as error:
    raise DataError(
      f'data.name={name!r}: {builder.data_path} holds {info.file_format.value} files, '
      f'which have no random access. Prepare it again:\n  {build} --overwrite'
    ) from error
  except ValueError as error:
    raise DataError(
      f'data.split={split!r} is no split of {name}; it has {", ".join(info.splits)}, '
      f'and parts such as {next(iter(info.splits))}[:90%]'
    ) from error
  for file in files:
    if not os.path.isfile(file.filename):
      raise DataError(
        f'data.name={name!r}: {file.filename} is missing. Copy it, or prepare it again:\n'
        f'  {build} --overwrite'
      )

  num_classes = getattr(features['label'], 'num_classes', 0) if 'label' in features else 0
  names = tuple(features['label'].names) if num_classes else ()
  ends = np.cumsum([file.take for file in files])
  read_records = functools.partial(
    read, name, data, shape, num_classes > 0, [file.filename for file in files], ends
  )

  def check(records):
    read_records(np.intersect1d(records, ends - 1), False)  # one of each file

  def identify(records):
    return digest([info.full_name, split, len(data), records.tobytes()])

  return LazySource(np.arange(len(data)), shape, num_classes, read_records, check, identify, names)


def ranges(name: str, split: str, data_dir: str | None) -> list[tuple[str, int, int]]:
  """Where the examples of a split lie: (file, first, last), last excluded. Raises DataError."""
  _, info, _ = _prepared(name, data_dir)
  files = info.splits[split].file_instructions
  return [(file.filename, file.skip, file.skip + file.take) for file in files]


def _prepared(name, data_dir):
  """The builder of a prepared data set, its description, and the command that prepares it."""
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
    info = builder.info
  except Exception as error:  # of damaged files it raises what its parsers do
    if dataset and os.path.isdir(os.path.join(directory, dataset)):
      raise DataError(
        f'data.name={name!r}: what describes it in {directory}/{dataset} is damaged ({error}). '
        f'Prepare it again:\n  {build} --overwrite'
      ) from error
    raise DataError(
      f'data.name={name!r}: no such prepared data set in {directory}. Set TFDS_DATA_DIR or '
      f'--config.machine.data_dir to where it is, or prepare it:\n  {build}'
    ) from error
  return builder, info, build


def read(
  name: str,
  data,
  shape: tuple[int, ...],
  labelled: bool,
  files: list[str],
  ends: Int[np.ndarray, ' files'],
  records: Int[np.ndarray, ' b'],
  progress: bool,
) -> Batch:
  """The examples of some records; file i holds those before `ends[i]`.

  Raises DataError if an image has another shape, or a file is damaged.
  """
  x, label = np.empty((len(records), *shape), np.uint8), np.zeros(len(records), np.int32)
  disable = None if progress else True  # None: unless stderr is a terminal
  with tqdm.tqdm(total=len(records), desc=f'decode {name}', disable=disable, delay=2) as bar:
    for first in range(0, len(records), CHUNK):
      # One read of many records is twice as fast as many reads of one. Threads would not help: at
      # 32 x 32 most of the time is spent in Python, under its lock.
      part = records[first : first + CHUNK]
      try:
        examples = data.__getitems__(part.tolist())
      except Exception as error:  # the reader's RuntimeError, or what PIL raises of wrong bytes
        file = _damaged(data, files, ends, part)
        raise DataError(f'data.name={name!r}: {file} is damaged ({error})') from error
      for i, example in enumerate(examples, first):
        require_shape(name, example['image'].shape, shape)
        x[i] = example['image']
        label[i] = example['label'] if labelled else 0
      bar.update(len(examples))
  return {'x': x, 'label': label}


def _damaged(data, files, ends, records):
  """The first file, of those that hold the records, with a record that cannot be read."""
  for record in np.sort(records):
    try:
      data.__getitems__([int(record)])
    except Exception:  # readers of several formats raise errors of their own; the caller names it
      break
  return files[np.searchsorted(ends, record, 'right')]
