"""Parameters that a training begins with, `train.start`: those of another model, by name."""

import math
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from jaxtyping import Float
from ml_collections import ConfigDict

from gdm_jax import build
from gdm_jax.build import System
from gdm_jax.config import blaming
from gdm_jax.models import naming
from gdm_jax.runtime import console, exported, paths
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training.step import init_params
from gdm_jax.training.workdir import adopt_config, load_ema

KEY = 'train.start'
ENOUGH = 0.5  # of the parameters; with fewer it is another network

Array = Float[np.ndarray, '...']
Named = dict[str, Array]


class Inputs(NamedTuple):
  """How many numbers of each kind a network is given (`conditioning.Predictor`)."""

  positions: int
  channels: int
  maps: int  # channels of the map of signal levels
  embedding: int
  classes: int
  levels: int  # of the augmentation label: the signal levels of a frequency basis
  augment: int  # the rest of it

  @classmethod
  def of(cls, system: System) -> 'Inputs':
    network, labels = system.predictor.network, system.process.grouping.of_elements
    levels = system.predictor.num_levels
    return cls(
      math.prod(labels.shape[:-1]),
      network.out_channels,
      labels.shape[-1],
      getattr(network, 'width', 0),
      network.num_classes,
      levels,
      network.augment_dim - levels,
    )

  @classmethod
  def of_edm(cls, params: Named) -> 'Inputs':
    """Those of EDM's network, which sees no signal levels."""
    widths = {'map_label/kernel': 0, 'map_augment/kernel': 0}
    for name, value in params.items():
      if name in widths:
        widths[name] = len(value)
      if name.endswith('_aux_conv/bias'):
        channels = len(value)
    first = next(
      v for n, v in params.items() if n.startswith('enc_') and n.endswith('_conv/kernel')
    )
    return cls(
      0,
      channels,
      first.shape[2] - channels,
      0,
      widths['map_label/kernel'],
      0,
      widths['map_augment/kernel'],
    )

  def along(self, network: str, name: str) -> tuple[int, tuple[int, ...]] | None:
    """The axis of a parameter along which inputs lie, and how many of each; None: it has none."""
    labels = self.classes, self.levels, self.augment
    if network == 'context_unet':  # of two DDPM++
      name = name.partition('/')[2]
      network = 'ddpmpp' if name.startswith('map_') else ''
    if network == 'ddpmpp' and name.startswith('enc_') and name.endswith('_conv/kernel'):
      return 2, (self.channels, self.maps)
    return {
      ('ddpmpp', 'map_label/kernel'): (0, (self.classes,)),
      ('ddpmpp', 'map_augment/kernel'): (0, labels[1:]),
      ('group_causal', 'labels/kernel'): (0, labels),
      ('mlp', 'input/kernel'): (
        0,
        (self.positions * (self.channels + self.maps), self.embedding, *labels),
      ),
    }.get((network, name))


LABELS = ('map_label/kernel', 'map_label/bias', 'map_augment/kernel', 'labels/kernel')
"""Parameters that a network without labels lacks."""


def parameters(config: ConfigDict, system: System, mesh: Mesh) -> dict:
  """Those of `train.start` where they fit, the others as the run's seed draws them; on the host.

  What a model is given for the first time has weights of zero, so the first prediction is that of
  the old model. What did not fit is printed. Raises ConfigError for parameters of another network.
  """
  old, inputs, origin = _read(config, mesh)
  drawn = jax.jit(lambda: init_params(config, system))()
  new = {name: np.asarray(value) for name, value in flatten_dict(drawn, sep='/').items()}
  network, now = config.model.name, Inputs.of(system)
  fitted, widened, random, taken = {}, [], [], 0
  for name, value in new.items():
    found = _fit(network, name, old.get(name), value.shape, inputs, now)
    if found is not None:
      taken += value.size
      fitted[name] = found.astype(value.dtype)
      if old[name].shape != value.shape:
        widened.append(f'{name} {old[name].shape} to {value.shape}')
    elif name.endswith(LABELS):
      fitted[name] = np.zeros_like(value)
      widened.append(f'{name} from none')
    else:
      fitted[name] = value
      random.append(name)

  total = sum(value.size for value in new.values())
  if taken < ENOUGH * total:
    example = random[0]
    there = old[example].shape if example in old else 'missing'
    raise ConfigError(
      f'{KEY} = {config.train.start} holds the parameters of another network: of {total:,} only '
      f'{taken:,} fit; {example} is {new[example].shape}, there {there}'
    )
  console.log(f'{KEY} = {config.train.start}: {origin}; {taken:,} of {total:,} parameters fit')
  for what, names in (
    ('new inputs, with weights of zero', widened),
    ('not there, or of another shape, so drawn at random', random),
    ('there, but not here', [name for name in old if name not in new]),
  ):
    if names:
      console.log(f'  {what}: {", ".join(names)}')
  return unflatten_dict(fitted, sep='/')


def _fit(network, name, old, shape, before, now) -> Array | None:
  """A parameter in its new shape, zero for new inputs; None if it has no place."""
  if old is None:
    return None
  place, wanted = before.along(network, name), now.along(network, name)
  if not (place and wanted):
    return old if old.shape == shape else None
  axis, sizes = wanted
  others = [old.shape[i] == n for i, n in enumerate(shape) if i != axis]
  if (
    old.ndim != len(shape)
    or not all(others)
    or any(a > b for a, b in zip(place[1], sizes, strict=True))
  ):
    return None
  if name.endswith('map_label/kernel'):
    # The network multiplies one-hot labels by the root of their number.
    old = old * math.sqrt(sum(place[1]) / sum(sizes))
  ends = np.cumsum(place[1])[:-1]
  parts = [
    np.pad(part, [(0, size - part.shape[axis] if i == axis else 0) for i in range(part.ndim)])
    for part, size in zip(np.split(old, ends, axis), sizes, strict=True)
  ]
  return np.concatenate(parts, axis)


def _read(config, mesh) -> tuple[Named, Inputs, str]:
  """Parameters, what their network was given, and where they are from, in words."""
  name, c = config.train.start, config.copy_and_resolve_references()
  folder = paths.expand(KEY, name)
  if (folder / 'checkpoints').is_dir():
    c.checkpoint.update(model='', load=0)
    c.sampling.update(labels=(), guidance=(1.0,), strategy='', order=(), cuts=())
    adopt_config(c, folder, ())
  else:
    model = exported.open_model(name, KEY)
    if not (model.folder / exported.CONFIG).exists():
      with blaming(f'{KEY} = {name}, model.name', config.model.name):
        if config.model.name != 'ddpmpp':
          raise ValueError("these are parameters of EDM's network, which is ddpmpp")
        params = flatten_dict(naming.from_names('ddpmpp', model.tensors()), sep='/')
      return params, Inputs.of_edm(params), "EDM's"
    c = model.config()
    adopt_config(c, folder, ())
  if c.model.name != config.model.name:
    raise ConfigError(
      f'{KEY} = {name} holds a model of model.name = {c.model.name}, and here it is '
      f'{config.model.name}'
    )
  system = build.system(c)
  params, step = load_ema(c, folder, system, mesh)
  params = jax.tree.map(np.asarray, params)
  return flatten_dict(params, sep='/'), Inputs.of(system), f'step {step:,} of {c.data.name}'
