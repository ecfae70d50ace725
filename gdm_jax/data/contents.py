"""What a data set holds: printed at the start, kept by a run, and compared when it resumes."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from gdm_jax.data.base import Source

LISTED = 10  # classes that a description names; of more it names the first and the last


class Contents(NamedTuple):
  """The number of examples, the names of the classes in order, and a digest of all there is."""

  count: int
  classes: tuple[str, ...]
  fingerprint: str

  @classmethod
  def of(cls, source: Source) -> 'Contents':
    """The contents of a source; of pictures in a folder the digest is of names and sizes."""
    classes = class_names(source)
    digest = hashlib.sha256(repr((len(source), classes, source.fingerprint)).encode())
    return cls(len(source), classes, digest.hexdigest()[:16])

  @classmethod
  def from_json(cls, tree: dict) -> 'Contents':
    """What `_asdict` wrote as JSON. Raises KeyError and TypeError for something else."""
    return cls(int(tree['count']), tuple(map(str, tree['classes'])), str(tree['fingerprint']))

  def __str__(self) -> str:
    if not self.classes:
      return f'{self.count:,} examples without classes'
    named = [f'{i} {name}' if name != str(i) else name for i, name in enumerate(self.classes)]
    if len(named) > LISTED:
      named[2:-1] = ['...']
    return f'{self.count:,} examples, {len(self.classes):,} classes: {", ".join(named)}'

  def difference(self, other: 'Contents') -> str:
    """How other contents differ from these, as a phrase; '' if they do not."""
    if self.fingerprint == other.fingerprint:
      return ''
    if self[:2] != other[:2]:
      return f'{other}; before {self}'
    return f'as many examples and the same classes ({self}), but others in content or order'


def class_names(source: Source) -> tuple[str, ...]:
  """The names of the classes; their numbers where they have none."""
  return source.class_names or tuple(map(str, range(source.num_classes)))


def digest(parts: Iterable[object]) -> str:
  """A fingerprint of values that have the same `repr` in every process."""
  total = hashlib.sha256()
  for part in parts:
    total.update(repr(part).encode())
  return total.hexdigest()
