"""Arrays out of pickled files, without executing what else a pickle can hold.

Pickles name functions that unpickling calls. Here only those that build tensors are admitted, and
what they build is numpy arrays; PyTorch is not needed.
"""

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

DTYPES = {
  'FloatStorage': '<f4',
  'DoubleStorage': '<f8',
  'HalfStorage': '<f2',
  'LongStorage': '<i8',
  'IntStorage': '<i4',
  'ByteStorage': '|u1',
}
"""Of PyTorch's storages."""

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""What files of PyTorch before 1.6 begin with."""


class UnsafePickle(ValueError):
  """A pickle that names something else than tensors; nothing of it was executed."""


def read_torch(content: bytes) -> dict[str, np.ndarray]:
  """The tensors by name of a file that `torch.save` wrote, in its old or its new format.

  Raises ValueError for another or a damaged file, and UnsafePickle.
  """
  try:
    read = _read_zip if zipfile.is_zipfile(io.BytesIO(content)) else _read_legacy
    tensors = read(io.BytesIO(content))
  except UnsafePickle:
    raise
  except Exception as error:  # a damaged pickle raises anything
    raise ValueError(f'no file of PyTorch, or damaged: {error}') from error
  if not isinstance(tensors, dict) or not all(isinstance(t, np.ndarray) for t in tensors.values()):
    raise ValueError('holds something else than tensors by name')
  return dict(tensors)


def read_numpy(content: bytes) -> dict:
  """The tree of numpy arrays in a pickle. Raises ValueError for a damaged one, and UnsafePickle."""
  try:
    return _load(io.BytesIO(content))
  except UnsafePickle:
    raise
  except Exception as error:  # a damaged pickle raises anything
    raise ValueError(f'no pickle of arrays, or damaged: {error}') from error


class Module(NamedTuple):
  """What a pickle holds of an object of EDM's classes: its state, and the name of its class."""

  class_name: str
  state: dict


def read_edm(content: bytes) -> tuple[dict[str, np.ndarray], dict]:
  """The tensors of 'ema' by name, in a pickle of EDM's, and what its networks were made with.

  Such a pickle holds source code, which unpickling executes elsewhere; here it is passed over, and
  of its objects only the states are kept. Raises ValueError for another or a damaged file, and
  UnsafePickle.
  """
  try:
    ema = _load(io.BytesIO(content), admitted=_ADMITTED_OF_EDM)['ema']
    options = {}
    for module in (ema, ema.state['_modules'].get('model')):
      options |= module.state['_init_kwargs'] if module else {}
    return dict(_tensors(ema)), options
  except UnsafePickle:
    raise
  except Exception as error:  # a damaged pickle raises anything
    raise ValueError(f'no pickle of EDM, or damaged: {error!r}') from error


def _tensors(module, prefix=''):
  """The parameters and buffers of a module and of those inside it, by dotted name."""
  for kind in ('_parameters', '_buffers'):
    for name, tensor in module.state[kind].items():
      if tensor is not None:
        if not isinstance(tensor, np.ndarray):
          raise ValueError(f'{prefix}{name} is no tensor')
        yield prefix + name, tensor
  for name, inside in module.state['_modules'].items():
    if inside is not None:
      yield from _tensors(inside, f'{prefix}{name}.')


def _read_zip(stream):
  with zipfile.ZipFile(stream) as archive:
    (name,) = (name for name in archive.namelist() if name.endswith('/data.pkl'))
    folder = name.removesuffix('data.pkl')

    def storage(kind, key, _count):
      return np.frombuffer(archive.read(f'{folder}data/{key}'), DTYPES[kind])

    return _load(io.BytesIO(archive.read(name)), storage)


def _read_legacy(stream):
  if _load(stream) != LEGACY_MAGIC:
    raise ValueError('another magic number')
  for _ in ('protocol version', 'system'):
    _load(stream)
  # The values follow the tensors that refer to them.
  storages = {}
  size = len(stream.getbuffer())

  def storage(kind, key, count):
    if not 0 <= count * np.dtype(DTYPES[kind]).itemsize <= size:
      raise ValueError(f'{count} values in a file of {size} bytes')
    return storages.setdefault(key, np.empty(count, DTYPES[kind]))

  tensors = _load(stream, storage)
  for key in _load(stream):
    values = storages[key]
    (count,) = struct.unpack('<q', stream.read(8))
    if count != len(values):
      raise ValueError(f'{count} values where {len(values)} belong')
    values[:] = np.frombuffer(stream.read(values.nbytes), values.dtype)
  return tensors


def _load(stream: io.BytesIO, storage: Callable | None = None, admitted: dict | None = None):
  """The next object of the stream.

  Looks first whether its lengths are true: the unpickler allocates what a damaged one claims.
  """
  start, size = stream.tell(), len(stream.getbuffer())
  for opcode, argument, _ in pickletools.genops(stream):
    if opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT') and argument > size:
      raise ValueError(f'object number {argument} in a file of {size} bytes')
  stream.seek(start)
  return _Unpickler(stream, storage, admitted or _ADMITTED).load()


class _Unpickler(pickle.Unpickler):
  """Admits what is listed alone; `storage(kind, key, count)` gives the values of a tensor."""

  def __init__(self, stream: io.BufferedIOBase, storage: Callable | None, admitted: dict):
    super().__init__(stream, encoding='latin1')
    self._storage, self._admitted = storage, admitted

  def find_class(self, module, name):
    if module == 'torch' and name in DTYPES:
      return name
    if (module, name) in self._admitted:
      return self._admitted[module, name]
    raise UnsafePickle(f'names {module}.{name}, which is no part of a tensor')

  def persistent_load(self, reference):
    _, kind, key, _, count, *_ = reference
    return self._storage(kind, key, count)


def _rebuild_tensor(storage, offset, shape, strides, *_):
  """A view of a storage's values, as `torch._utils._rebuild_tensor_v2` makes it."""
  reach = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
  inside = min(strides, default=0) >= 0 <= offset and offset + reach < len(storage)
  if math.prod(shape) > len(storage) or (math.prod(shape) and not inside):
    raise ValueError(f'a tensor {shape} outside of its {len(storage)} values')
  strides = [stride * storage.itemsize for stride in strides]
  return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides)


def _empty_array(*_):
  """An array for its state, which follows in the pickle."""
  return np.empty(0)


def _storage_of_bytes(content):
  """The values of a storage that was pickled by itself, as PyTorch's old format."""
  storage = _read_legacy(io.BytesIO(content))
  if not isinstance(storage, np.ndarray):
    raise ValueError('a storage that is none')
  return storage


def _scalar(dtype, content):
  return np.frombuffer(content, dtype, 1)[0]


def _module(meta):
  return Module(str(meta['class_name']), dict(meta['state']))


class _Container:
  """A module of PyTorch's own, such as ModuleDict; pickle fills in its state."""

  def __init__(self):
    self.state = {}

  def __setstate__(self, state):
    self.state = state


def _dtype(name, *_):
  dtype = np.dtype(name)
  if dtype.kind not in 'biuf':
    raise ValueError(f'values of dtype {dtype}')
  return dtype


_ADMITTED = {
  ('collections', 'OrderedDict'): OrderedDict,
  ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
  ('torch._utils', '_rebuild_parameter'): lambda tensor, *_: tensor,
  ('numpy', 'dtype'): _dtype,
  ('numpy', 'ndarray'): 'ndarray',  # an argument of _reconstruct, not called
  ('numpy.core.multiarray', '_reconstruct'): _empty_array,
  ('numpy._core.multiarray', '_reconstruct'): _empty_array,
}

_ADMITTED_OF_EDM = {
  **_ADMITTED,
  ('torch_utils.persistence', '_reconstruct_persistent_obj'): _module,
  ('torch.storage', '_load_from_bytes'): _storage_of_bytes,
  ('torch.nn.modules.container', 'ModuleDict'): _Container,
  ('torch.nn.modules.container', 'ModuleList'): _Container,
  ('dnnlib.util', 'EasyDict'): dict,
  ('builtins', 'set'): set,
  ('numpy.core.multiarray', 'scalar'): _scalar,
  ('numpy._core.multiarray', 'scalar'): _scalar,
}
