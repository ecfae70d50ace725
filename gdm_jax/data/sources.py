"""Random-access data: digits, the toy mixture, data of one's own, and prepared TFDS data sets.

Nothing here imports TensorFlow: TFDS reads ArrayRecord files without it.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Sequence
from typing import Protocol, TypedDict

import numpy as np
import tqdm
from jaxtyping import Float, Float32, Int, Int32, UInt8

BYTE = 1 / 127.5  # the distance between neighbours of 0..255, in the model's units


class DataError(ValueError):
  """A data set that cannot be used as the config asks; the message names the config key."""


class Batch(TypedDict):
  """Examples. uint8 means images of 0..255; float32 is already in the model's units."""

  x: UInt8[np.ndarray, 'b *grid c'] | Float32[np.ndarray, 'b *grid c']
  label: Int32[np.ndarray, ' b']


class Source(Protocol):
  """Examples by index, a batch of indices at a time."""

  @property
  def num_classes(self) -> int:
    """The number of classes, 0 if the examples have none (their label is then 0)."""

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of one example: (*grid, channels)."""

  @property
  def bin_width(self) -> float:
    """The distance between neighbouring values in the model's units, 0 if they are continuous."""

  def __len__(self) -> int: ...

  def __getitem__(self, indices: Int[np.ndarray, ' b']) -> Batch: ...


def load(
  name: str,
  split: str,
  shape: Sequence[int],
  data_dir: str | None = None,
  memory_bytes: int = 4 * 2**30,
) -> Source:
  """Opens a data set.

  Args:
    name: 'digits' (1,797 images, 8x8x1, shuffled once), 'mixture' (100,000 points of `Mixture()`,
      2x1),
      'npz:FILE' for arrays of one's own, `x` [n, *grid, c] and maybe `label` [n],
      'folder:PATH' or 'folder:PATH1,PATH2' for one's own pictures (see `folder.find`), or
      'tfds:NAME' for an image data set that TFDS has prepared as ArrayRecord, such as
      'tfds:cifar10', 'tfds:cifar10:3.0.2' or 'tfds:imagenet_resized/64x64'.
    split: 'train' or a slice of it, such as 'train[:90%]' or 'train[-200:]'; for TFDS any split.
    shape: the model's (*grid, channels).
    data_dir: where TFDS looks; None is TFDS's default, which TFDS_DATA_DIR sets.
    memory_bytes: images that take no more than this are decoded once, here; others whenever an
      example is read.

  Raises:
    DataError: the name, the split or the files are not there, the shape is another, or pictures
      cannot be read.
  """
  if name.startswith('tfds:'):
    source = _tfds(name, split, tuple(shape), data_dir or None)
  else:
    source = _part(name, split, tuple(shape))
  if isinstance(source, ArraySource):
    return source
  if len(source) * np.prod(shape) <= memory_bytes:
    return source.decoded()
  source.check()  # what is wrong should fail here, not at some training step
  return source


def _part(name: str, split: str, shape: tuple[int, ...]):
  """The split of a data set that has only 'train' and is sliced here."""
  opened = {
    'digits': _digits,
    'mixture': _mixture,
    'npz': functools.partial(_npz, name),
    'folder': functools.partial(_folder, name, shape),
  }
  kind = name.split(':')[0]
  if kind not in opened:
    raise DataError(
      f'data.name={name!r} is unknown; valid are folder:PATH, digits, mixture, npz:FILE and '
      'tfds:NAME'
    )
  if not (part := re.fullmatch(rf'train(?:\[({_EDGE})?:({_EDGE})?\])?', split)):
    raise DataError(f'data.split={split!r}: {name} has only train, and slices as train[:90%]')
  source = opened[kind]()
  _require_shape(name, source.shape, shape)
  chosen = slice(*(_edge(text, len(source)) for text in part.groups()))
  if not range(len(source))[chosen]:
    raise DataError(f'data.split={split!r} leaves nothing of the {len(source):,} of {name}')
  return source.subset(chosen)


_EDGE = r'-?\d+%?'


def _edge(text: str | None, length: int) -> int | None:
  """A place in the examples, of a number of them or of their percentage, rounded as TFDS does."""
  if text and text.endswith('%'):
    return round(int(text[:-1]) * length / 100)
  return text and int(text)


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
  """Examples in memory."""

  x: UInt8[np.ndarray, 'n *grid c'] | Float32[np.ndarray, 'n *grid c']
  label: Int32[np.ndarray, ' n']
  num_classes: int
  bin_width: float = 0.0

  @property
  def shape(self) -> tuple[int, ...]:
    return self.x.shape[1:]

  def __len__(self) -> int:
    return len(self.x)

  def __getitem__(self, indices: Int[np.ndarray, ' b']) -> Batch:
    return {'x': self.x[indices], 'label': self.label[indices]}

  def subset(self, part: slice | Int[np.ndarray, ' m']) -> 'ArraySource':
    """Some of the examples, by index."""
    return dataclasses.replace(self, x=self.x[part], label=self.label[part])


@dataclasses.dataclass(frozen=True, eq=False)
class LazySource:
  """Images that are decoded whenever they are read.

  Attributes:
    name: what error messages call the data set.
    decode: gives a (uint8 image, label) pair for each index; called from several threads.
    length: the number of examples.
    shape: of one example; an image of another shape raises DataError when it is read.
    num_classes: 0 if the examples have none.
  """

  name: str
  decode: Callable[[list[int]], list[tuple[np.ndarray, int]]]
  length: int
  shape: tuple[int, ...]
  num_classes: int
  bin_width: float = BYTE

  def __len__(self) -> int:
    return self.length

  def __getitem__(self, indices: Int[np.ndarray, ' b']) -> Batch:
    images, labels = zip(*self.decode(indices.tolist()), strict=True)
    for image in images:
      _require_shape(self.name, image.shape, self.shape)
    return {'x': np.stack(images), 'label': np.array(labels, np.int32)}

  def check(self):
    """Raises DataError if the first image has another shape."""
    self[np.arange(1)]

  def decoded(self) -> ArraySource:
    """Decodes every example into memory."""
    x = np.empty((self.length, *self.shape), np.uint8)
    label = np.empty(self.length, np.int32)
    progress = tqdm.tqdm(total=self.length, desc=f'decode {self.name}', disable=None, delay=2)
    with progress:
      for part in np.array_split(np.arange(self.length), -(-self.length // 1024)):
        batch = self[part]
        x[part], label[part] = batch['x'], batch['label']
        progress.update(len(part))
    return ArraySource(x, label, self.num_classes, self.bin_width)


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A mixture of isotropic 2-D Gaussians, for the toy experiment of Fig. 1a.

  The default lies on the dark squares of a 4x4 chessboard: mean zero, about unit scale, four
  separate modes along either coordinate, and two along each given the other.
  """

  weights: tuple[float, ...] = (0.16, 0.14, 0.06, 0.15, 0.10, 0.08, 0.19, 0.12)
  means: tuple[tuple[float, float], ...] = (
    (-1.275, -1.275),
    (-1.275, 0.425),
    (-0.425, -0.425),
    (-0.425, 1.275),
    (0.425, -1.275),
    (0.425, 0.425),
    (1.275, -0.425),
    (1.275, 1.275),
  )
  std: float = 0.12

  def sample(
    self, rng: np.random.Generator, n: int
  ) -> tuple[Float[np.ndarray, 'n 2'], Int[np.ndarray, ' n']]:
    """Draws n points and the component that each came from."""
    component = rng.choice(len(self.weights), n, p=self.weights)
    return rng.normal(np.asarray(self.means)[component], self.std), component

  def log_density(self, points: Float[np.ndarray, 'n 2']) -> Float[np.ndarray, ' n']:
    """The natural logarithm of the density at each point."""
    distance = np.square(points[:, None] - np.asarray(self.means)).sum(-1)
    scale = np.log(self.weights) - np.log(2 * np.pi * self.std**2)
    return np.logaddexp.reduce(scale - distance / (2 * self.std**2), axis=-1)


def _digits() -> ArraySource:
  from sklearn import datasets

  digits = datasets.load_digits()
  # They come writer after writer, so that a slice of them as they are would be of other writers.
  mixed = np.random.default_rng(0).permutation(len(digits.images))
  x = digits.images[mixed, :, :, None] / 8 - 1  # the pixels are 0..16
  label = digits.target[mixed].astype(np.int32)
  return ArraySource(x.astype(np.float32), label, 10, bin_width=1 / 8)


def _mixture() -> ArraySource:
  mixture = Mixture()
  points, component = mixture.sample(np.random.default_rng(0), 100_000)
  x = points[..., None].astype(np.float32)
  return ArraySource(x, component.astype(np.int32), len(mixture.weights))


def _npz(name: str) -> ArraySource:
  file = os.path.expanduser(name.removeprefix('npz:'))
  try:
    arrays = dict(np.load(file))
  except (OSError, ValueError) as error:
    raise DataError(f'data.name={name!r}: {file} is no readable npz file ({error})') from error
  x = arrays.get('x')
  if x is None or x.ndim < 3 or not len(x):
    raise DataError(f"data.name={name!r} needs an array 'x' of shape [n, *grid, channels]")
  label = arrays.get('label', np.zeros(len(x)))
  if label.shape != (len(x),):
    raise DataError(f"data.name={name!r}: 'label' has shape {label.shape}, 'x' {x.shape}")
  num_classes = int(label.max()) + 1 if 'label' in arrays else 0
  label = label.astype(np.int32)
  if x.dtype == np.uint8:
    return ArraySource(x, label, num_classes, BYTE)
  return ArraySource(x.astype(np.float32), label, num_classes)


def _folder(name: str, shape: tuple[int, ...]):
  from gdm_jax.data import folder  # which builds on this module

  return folder.find(name, shape)


def _tfds(name: str, split: str, shape: tuple[int, ...], data_dir: str | None) -> LazySource:
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import read_only_builder

  dataset = name.removeprefix('tfds:')
  directory = os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR)
  build = (
    f'pip install tensorflow-cpu && '
    f'tfds build {dataset} --file_format=array_record --data_dir={directory}'
  )
  try:
    # Unlike tfds.builder, this needs no code for the data set and does not insist on its newest
    # version: what was once prepared stays readable, and what is missing is missed at once.
    builder = read_only_builder.builder_from_files(dataset, data_dir=directory)
  except (tfds.core.DatasetNotFoundError, ValueError) as error:
    raise DataError(
      f'data.name={name!r}: no such prepared data set in {directory}. Set TFDS_DATA_DIR or '
      f'--config.data.data_dir to where it is, or prepare it:\n  {build}'
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
  decode = functools.partial(_decode_tfds, data, num_classes > 0)
  return LazySource(name, decode, len(data), shape, num_classes)


def _decode_tfds(data, labelled: bool, indices: list[int]) -> list[tuple[np.ndarray, int]]:
  # One read of many records is twice as fast as many reads of one. Threads would not help: at
  # 32x32 most of the time is spent in Python, under its lock.
  examples = data.__getitems__(indices)
  return [(example['image'], example['label'] if labelled else 0) for example in examples]


def _require_shape(name: str, found: tuple[int, ...], shape: tuple[int, ...]) -> None:
  if found != shape:
    raise DataError(f'data.shape={shape} is what the model expects, but {name} has {found}')
