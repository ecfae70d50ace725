"""What a data set is: examples by index, in memory or decoded as they are read."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, Int32, UInt8

from gdm_jax.data.units import LEVEL
from gdm_jax.runtime.errors import DataError

Examples = UInt8[np.ndarray, 'n *grid c'] | Float32[np.ndarray, 'n *grid c']


class Batch(TypedDict):
  """Examples. uint8 means images of 0..255; float32 is already in the model's units."""

  x: Examples
  label: Int32[np.ndarray, ' n']


@runtime_checkable
class Source(Protocol):
  """Examples by index, a batch of indices at a time."""

  @property
  def num_classes(self) -> int:
    """The number of classes, 0 if the examples have none (their label is then 0)."""

  @property
  def class_names(self) -> tuple[str, ...]:
    """The names of the classes in order; empty if they have only numbers."""

  @property
  def fingerprint(self) -> str:
    """A digest of all examples and their labels, in order."""

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of one example: (*grid, channels)."""

  @property
  def bin_width(self) -> float:
    """The distance between neighbouring values in the model's units, 0 if they are continuous."""

  def __len__(self) -> int: ...

  def __getitem__(self, indices: Int[np.ndarray, ' b']) -> Batch: ...

  def check(self):
    """Raises DataError if examples cannot be read."""


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
  """Examples in memory."""

  x: Examples
  label: Int32[np.ndarray, ' n']
  num_classes: int
  bin_width: float = 0.0
  class_names: tuple[str, ...] = ()
  decoded_from: str = ''  # the fingerprint of the files that these examples are of

  @functools.cached_property
  def fingerprint(self) -> str:
    if self.decoded_from:
      return self.decoded_from
    total = hashlib.sha256(f'{self.x.dtype} {self.x.shape}'.encode())
    total.update(np.ascontiguousarray(self.x))
    total.update(np.ascontiguousarray(self.label))
    return total.hexdigest()

  @property
  def shape(self) -> tuple[int, ...]:
    return self.x.shape[1:]

  def __len__(self) -> int:
    return len(self.x)

  def __getitem__(self, indices: Int[np.ndarray, ' b']) -> Batch:
    return {'x': self.x[indices], 'label': self.label[indices]}

  def subset(self, part: slice | Int[np.ndarray, ' m']) -> 'ArraySource':
    """Some of the examples, by index."""
    return dataclasses.replace(self, x=self.x[part], label=self.label[part], decoded_from='')

  def check(self):
    """They have been read already."""


@dataclasses.dataclass(frozen=True, eq=False)
class LazySource:
  """Images that are decoded whenever they are read.

  Attributes:
    records: the numbers of the examples among all that `read` and `check_records` know.
    shape: of one example.
    num_classes: 0 if the examples have none.
    read: decodes records, under a progress bar if its second argument is True; called from
      several threads. Raises DataError.
    check_records: raises DataError if some records cannot be decoded, without decoding them all.
    identify: a digest of records and their labels, from names and sizes.
    class_names: empty if the classes have only numbers.
  """

  records: Int[np.ndarray, ' n']
  shape: tuple[int, ...]
  num_classes: int
  read: Callable[[Int[np.ndarray, ' b'], bool], Batch]
  check_records: Callable[[Int[np.ndarray, ' n']], None]
  identify: Callable[[Int[np.ndarray, ' n']], str]
  class_names: tuple[str, ...] = ()
  bin_width: float = LEVEL

  @functools.cached_property
  def fingerprint(self) -> str:
    return self.identify(self.records)

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, indices: Int[np.ndarray, ' b']) -> Batch:
    return self.read(self.records[indices], False)

  def subset(self, part: slice | Int[np.ndarray, ' m']) -> 'LazySource':
    """Some of the examples, by index."""
    return dataclasses.replace(self, records=self.records[part])

  def decoded(self) -> ArraySource:
    """Decodes every example into memory. Raises DataError if one cannot be."""
    batch = self.read(self.records, True)
    return ArraySource(
      *(batch['x'], batch['label'], self.num_classes, self.bin_width),
      self.class_names,
      decoded_from=self.fingerprint,
    )

  def check(self):
    """Raises DataError if examples cannot be decoded."""
    self.check_records(self.records)


def count_classes(label: Int[np.ndarray, ' n']) -> int:
  """How many classes these numbers from 0 on name; fewer than two are none."""
  classes = int(label.max()) + 1
  return classes if classes > 1 else 0


def require_shape(name: str, found: tuple[int, ...], shape: tuple[int, ...]):
  """Raises DataError unless the data set has the model's shape."""
  if found != shape:
    raise DataError(f'data.shape={shape} is what the model expects, but {name} has {found}')
