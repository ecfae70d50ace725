"""The pictures that were dropped on the page, in the model's size."""

import collections
import hashlib
import itertools
import os
import pathlib
import tempfile
import threading
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from gdm_jax.data.pictures import opened, read_picture
from gdm_jax.explore.request import RequestError

KEPT = 64
SKETCH = 'known.png'  # what "Save sketch" writes, which no other picture is called
MAX_PIXELS = 50_000_000  # of a picture before it is resized


class Picture(NamedTuple):
  """A picture by the name of its file, and what was done to it."""

  name: str
  pixels: UInt8[np.ndarray, 'h w c']
  changes: str


class Pictures:
  """The newest pictures, by ids that depend on their pixels alone; no two have the same name."""

  def __init__(self, shape: tuple[int, int, int]):
    self._shape, self._lock = shape, threading.Lock()
    self._pictures: collections.OrderedDict[str, Picture] = collections.OrderedDict()

  def add(self, name: str, content: bytes) -> str:
    """Reads a picture's file and returns its id. Raises RequestError."""
    with tempfile.TemporaryDirectory() as folder:
      file = pathlib.Path(folder) / 'picture'
      file.write_bytes(content)
      try:
        with opened(file) as image:
          size = image.size
        if size[0] * size[1] > MAX_PIXELS:
          raise RequestError(
            f'{name} is {size[0]} x {size[1]}: at most {MAX_PIXELS:,} pixels are read'
          )
        pixels, changes = read_picture(file, self._shape)
      except RequestError:
        raise
      except ValueError as error:
        raise RequestError(str(error).replace(str(file), name)) from None
    key = hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
    with self._lock:
      taken = {SKETCH, *(p.name for other, p in self._pictures.items() if other != key)}
      stem, suffix = os.path.splitext(name)
      names = itertools.chain([name], (f'{stem}-{i}{suffix}' for i in itertools.count(2)))
      name = next(n for n in names if n not in taken)
      self._pictures[key] = Picture(name, pixels, changes)
      self._pictures.move_to_end(key)
      if len(self._pictures) > KEPT:
        self._pictures.popitem(last=False)
    return key

  def get(self, key: str) -> Picture:
    """The picture of an id. Raises RequestError if it is not there."""
    with self._lock:
      if key not in self._pictures:
        raise RequestError(f'picture {key!r} is not here (any more): drop it again')
      return self._pictures[key]
