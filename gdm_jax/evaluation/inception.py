"""The Inception-v3 that FID is defined by: TensorFlow's network of 2015-12-05, with its own resize.

It is not torchvision's Inception-v3: pools and resize differ, and with them the number. Parameters
carry the names of PyTorch's FID tools: `Mixed_5b.branch1x1.conv.weight` is
`params['Mixed_5b']['branch1x1']['kernel']`, see `params_from_reference`.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import ArrayLike, Float, UInt8

from gdm_jax.typing import AnyArray

SIZE = 299
BATCH_NORM = ('weight', 'bias', 'running_mean', 'running_var')
BATCH_NORM_EPSILON = 1e-3
# Elsewhere a convolution of float32 is TF32 (GPU) or bfloat16 (TPU), which gives another FID.
PRECISION = jax.lax.Precision.HIGHEST


class Inception(nn.Module):
  """Features of images at the five depths that are in use (Heusel et al. 2017: '2048')."""

  @nn.compact
  def __call__(
    self, images: UInt8[AnyArray, 'n h w 3']
  ) -> dict[str, Float[AnyArray, 'n features']]:
    """Maps images of any size to {'64', '192', '768', '2048', 'logits_unbiased'}.

    The first four are averages over positions and are called by their width; the last, as wide
    as the 1008 classes, is what the Inception score builds on: logits without their bias.
    """
    x = (resize(images.astype(jnp.float32)) - 128) / 128
    x = Conv(32, (3, 3), 2, 'VALID', name='Conv2d_1a_3x3')(x)
    x = Conv(32, (3, 3), 1, 'VALID', name='Conv2d_2a_3x3')(x)
    x = Conv(64, (3, 3), name='Conv2d_2b_3x3')(x)
    taps = {'64': (x := halve(x))}
    x = Conv(80, (1, 1), name='Conv2d_3b_1x1')(x)
    x = Conv(192, (3, 3), 1, 'VALID', name='Conv2d_4a_3x3')(x)
    taps['192'] = x = halve(x)
    for name, branches in MIXED.items():
      x = Mixed(branches, name=name)(x)
      if name == 'Mixed_6e':
        taps['768'] = x
    taps['2048'] = x
    taps = {name: tap.mean((1, 2)) for name, tap in taps.items()}
    fc = nn.Dense(1008, use_bias=False, precision=PRECISION, name='fc')
    return taps | {'logits_unbiased': fc(taps['2048'])}


def resize(x: Float[AnyArray, 'n h w c'], size: int = SIZE) -> Float[AnyArray, 'n size size c']:
  """Bilinear as in TensorFlow 1: pixel i lies at i * old / new, and nothing is smoothed."""
  for axis in (1, 2):
    old = x.shape[axis]
    # Whole numbers: no pixel moves to its neighbour by rounding.
    low, rest = np.divmod(np.arange(size) * old, size)
    first, second = (jnp.take(x, at, axis) for at in (low, np.minimum(low + 1, old - 1)))
    weight = np.expand_dims(np.float32(rest / size), [a for a in range(x.ndim) if a != axis])
    x = first + (second - first) * weight
  return x


class Conv(nn.Module):
  """Convolution, batch norm (folded into a scale and a bias for each channel) and ReLU."""

  features: int
  window: tuple[int, int]
  stride: int = 1
  padding: str = 'SAME'

  @nn.compact
  def __call__(self, x: Float[AnyArray, 'n h w c']) -> Float[AnyArray, 'n h2 w2 features']:
    shape = (*self.window, x.shape[-1], self.features)
    kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
    scale = self.param('scale', nn.initializers.ones, (self.features,))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x = jax.lax.conv_general_dilated(
      x,
      kernel,
      (self.stride, self.stride),
      self.padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=PRECISION,
    )
    return nn.relu(x * scale + bias)


def halve(x: Float[AnyArray, 'n h w c']) -> Float[AnyArray, 'n h2 w2 c']:
  """The maximum of 3x3 pixels, at every second."""
  return nn.max_pool(x, (3, 3), (2, 2))


def average(x: Float[AnyArray, 'n h w c']) -> Float[AnyArray, 'n h w c']:
  """The average of 3x3 pixels, at the border of those inside the image."""
  return nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)


def largest(x: Float[AnyArray, 'n h w c']) -> Float[AnyArray, 'n h w c']:
  """The maximum of 3x3 pixels."""
  return nn.max_pool(x, (3, 3), padding='SAME')


class Mixed(nn.Module):
  """Branches side by side, their channels concatenated.

  Attributes:
    branches: the steps of each by its name: a pool, a convolution (features, height, width) or
      (features, height, width, stride), or two such convolutions side by side.
  """

  branches: Mapping[str, tuple]

  @nn.compact
  def __call__(self, x: Float[AnyArray, 'n h w c']) -> Float[AnyArray, 'n h2 w2 c2']:
    outputs = [self._branch(name, steps, x) for name, steps in self.branches.items()]
    return jnp.concatenate(outputs, axis=-1)

  def _branch(self, name, steps, x):
    for number, step in enumerate(steps, 1):
      if callable(step):
        x = step(x)
      elif isinstance(step[0], tuple):
        sides = [_conv(f'{name}_{number}{s}', *conv)(x) for s, conv in zip('ab', step, strict=True)]
        x = jnp.concatenate(sides, axis=-1)
      else:
        # The reference numbers the convolutions of a branch that has several.
        alone = len(steps) == 1 or callable(steps[0])
        x = _conv(name if alone else f'{name}_{number}', *step)(x)
    return x


def _conv(name, features, height, width, stride=1):
  return Conv(features, (height, width), stride, 'SAME' if stride == 1 else 'VALID', name=name)


def _fine(pooled):
  return {
    'branch1x1': ((64, 1, 1),),
    'branch5x5': ((48, 1, 1), (64, 5, 5)),
    'branch3x3dbl': ((64, 1, 1), (96, 3, 3), (96, 3, 3)),
    'branch_pool': (average, (pooled, 1, 1)),
  }


def _middle(width):
  return {
    'branch1x1': ((192, 1, 1),),
    'branch7x7': ((width, 1, 1), (width, 1, 7), (192, 7, 1)),
    'branch7x7dbl': (
      *((width, 1, 1), (width, 7, 1), (width, 1, 7)),
      *((width, 7, 1), (192, 1, 7)),
    ),
    'branch_pool': (average, (192, 1, 1)),
  }


def _coarse(pool):
  return {
    'branch1x1': ((320, 1, 1),),
    'branch3x3': ((384, 1, 1), ((384, 1, 3), (384, 3, 1))),
    'branch3x3dbl': ((448, 1, 1), (384, 3, 3), ((384, 1, 3), (384, 3, 1))),
    'branch_pool': (pool, (192, 1, 1)),
  }


MIXED = {
  'Mixed_5b': _fine(32),
  'Mixed_5c': _fine(64),
  'Mixed_5d': _fine(64),
  'Mixed_6a': {
    'branch3x3': ((384, 3, 3, 2),),
    'branch3x3dbl': ((64, 1, 1), (96, 3, 3), (96, 3, 3, 2)),
    'branch_pool': (halve,),
  },
  'Mixed_6b': _middle(128),
  'Mixed_6c': _middle(160),
  'Mixed_6d': _middle(160),
  'Mixed_6e': _middle(192),
  'Mixed_7a': {
    'branch3x3': ((192, 1, 1), (320, 3, 3, 2)),
    'branch7x7x3': ((192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3, 2)),
    'branch_pool': (halve,),
  },
  'Mixed_7b': _coarse(average),
  'Mixed_7c': _coarse(largest),  # as published, although Mixed_7b averages
}


def params_from_reference(weights: Mapping[str, ArrayLike]) -> dict:
  """Parameters of `Inception`, float32, from those of the published network, by its names.

  Batch norm's statistics are folded in float64; its counters and `fc.bias` have no use here.

  Raises:
    ValueError: names the first parameter that is missing, has another shape, or is not known.
  """
  weights = {n: np.asarray(w) for n, w in weights.items() if not n.endswith('.num_batches_tracked')}
  check_shapes(weights, reference_shapes())
  params = {'fc.kernel': weights['fc.weight'].T}
  for name, weight in weights.items():
    module, conv, _ = name.partition('.conv.weight')
    if conv:
      gamma, beta, mean, variance = (np.float64(weights[f'{module}.bn.{p}']) for p in BATCH_NORM)
      scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
      params[f'{module}.kernel'] = weight.transpose(2, 3, 1, 0)
      params[f'{module}.scale'] = scale
      params[f'{module}.bias'] = beta - mean * scale
  return unflatten_dict({name: np.float32(value) for name, value in params.items()}, sep='.')


def reference_shapes() -> dict[str, tuple[int, ...]]:
  """The shapes of the published parameters by name; convolutions are [out, in, h, w]."""
  image = jnp.zeros((1, SIZE, SIZE, 3), jnp.uint8)
  made = jax.eval_shape(Inception().init, jax.random.key(0), image)['params']
  inputs, outputs = made.pop('fc')['kernel'].shape
  shapes = {'fc.weight': (outputs, inputs), 'fc.bias': (outputs,)}
  for name, param in flatten_dict(made, sep='.').items():
    if name.endswith('.kernel'):
      module = name.removesuffix('.kernel')
      *window, inputs, outputs = param.shape
      shapes[f'{module}.conv.weight'] = (outputs, inputs, *window)
      shapes |= {f'{module}.bn.{part}': (outputs,) for part in BATCH_NORM}
  return shapes


def check_shapes(weights: Mapping[str, ArrayLike], shapes: Mapping[str, tuple[int, ...]]):
  """Raises ValueError with the first name that is missing, has another shape, or is not known."""
  for name, shape in shapes.items():
    if name not in weights:
      raise ValueError(f'parameter {name!r} is missing')
    if np.shape(weights[name]) != shape:
      raise ValueError(f'parameter {name!r} has shape {np.shape(weights[name])}, not {shape}')
  for name in weights:
    if name not in shapes:
      raise ValueError(f'{name!r} is not a parameter of this network')
