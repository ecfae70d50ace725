"""Pickles as EDM writes them, made without PyTorch: persistent objects with their source code."""

import contextlib
import io
import pickle
import struct
import sys
import types
from collections import OrderedDict

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C


class _Reduced:
  """Is pickled as a call, and its result's state."""

  def __init__(self, function, *args):
    self.function, self.args = function, args

  def __reduce__(self):
    return self.function, self.args


@contextlib.contextmanager
def _modules():
  """Modules that are named as those of PyTorch and EDM are, as long as something is pickled."""

  def function(name):
    def call(*_):
      raise AssertionError(name)

    call.__name__ = call.__qualname__ = name
    return call

  classes = {'FloatStorage': type, 'EasyDict': dict, 'ModuleDict': object}
  names = {
    **{name: [] for name in ('torch.nn', 'torch.nn.modules', 'torch_utils', 'dnnlib')},
    'torch': ['FloatStorage'],
    'torch.storage': ['_load_from_bytes'],
    'torch._utils': ['_rebuild_tensor_v2', '_rebuild_parameter'],
    'torch.nn.modules.container': ['ModuleDict'],
    'torch_utils.persistence': ['_reconstruct_persistent_obj'],
    'dnnlib.util': ['EasyDict'],
  }
  made = {}
  for module, contents in names.items():
    made[module] = types.ModuleType(module)
    for name in contents:
      if name in classes:
        thing = type(name, (classes[name],), {'__module__': module})
      else:
        thing = function(name)
        thing.__module__ = module
      setattr(made[module], name, thing)
  before = {name: sys.modules.get(name) for name in made}
  sys.modules.update(made)
  try:
    yield made
  finally:
    for name, module in before.items():
      sys.modules.pop(name) if module is None else sys.modules.update({name: module})


def _storage(torch, values):
  """The bytes of a storage as `torch.save` wrote it before its format was a zip."""
  reference = object()

  class Pickler(pickle.Pickler):
    def persistent_id(self, thing):
      kind = torch['torch'].FloatStorage
      return ('storage', kind, '0', 'cpu', values.size, None) if thing is reference else None

  stream = io.BytesIO()
  for thing in (MAGIC, 1001, {'little_endian': True}):
    pickle.dump(thing, stream, 2)
  Pickler(stream, 2).dump(reference)
  pickle.dump(['0'], stream, 2)
  stream.write(struct.pack('<q', values.size) + values.astype('<f4').tobytes())
  return stream.getvalue()


def _parameter(torch, value):
  value = np.ascontiguousarray(value, np.float32)
  strides = tuple(s // value.itemsize for s in value.strides)
  storage = _Reduced(torch['torch.storage']._load_from_bytes, _storage(torch, value))
  utils = torch['torch._utils']
  tensor = _Reduced(
    utils._rebuild_tensor_v2, storage, 0, value.shape, strides, False, OrderedDict()
  )
  return _Reduced(utils._rebuild_parameter, tensor, False, OrderedDict())


def dump(weights: dict, source: str = '', options: dict | None = None) -> bytes:
  """A snapshot of the network with these parameters by EDM's names; source: of its classes."""
  with _modules() as torch:

    def state(weights, **more):
      groups = {}
      for name, value in weights.items():
        first, _, rest = name.partition('.')
        groups.setdefault(first, {})[rest] = value
      own = {name: _parameter(torch, group['']) for name, group in groups.items() if '' in group}
      modules = {
        name: container(group) if name in ('enc', 'dec') else persistent(group, 'UNetBlock')
        for name, group in groups.items()
        if '' not in group
      }
      kinds = {'_parameters': OrderedDict(own), '_buffers': OrderedDict(unused=None)}
      return {
        'training': False,
        **kinds,
        '_non_persistent_buffers_set': set(),
        '_modules': OrderedDict(modules, map_none=None),
        'skip_scale': np.sqrt(0.5),
        '_init_args': (),
        **more,
      }

    def persistent(weights, name, init=None):
      meta = {
        **{'type': 'class', 'version': 6, 'module_src': source, 'class_name': name},
        'state': state(weights, _init_kwargs=init or {}),
      }
      return _Reduced(torch['torch_utils.persistence']._reconstruct_persistent_obj, meta)

    def container(weights):
      made = torch['torch.nn.modules.container'].ModuleDict()
      made.__dict__.update(state(weights))
      return made

    model = persistent(weights, 'SongUNet', options)
    ema = {
      **{'type': 'class', 'version': 6, 'module_src': source, 'class_name': 'EDMPrecond'},
      'state': {**state({}), '_init_kwargs': {'sigma_data': 0.5}},
    }
    ema['state']['_modules'] = OrderedDict(model=model)
    loaded = torch['dnnlib.util'].EasyDict(resolution=32)
    reconstruct = torch['torch_utils.persistence']._reconstruct_persistent_obj
    tree = {'ema': _Reduced(reconstruct, ema), 'loss_fn': None, 'dataset_kwargs': loaded}
    return pickle.dumps(tree, 4)
