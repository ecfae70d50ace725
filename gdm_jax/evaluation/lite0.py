"""EfficientNet-Lite0 (Tan and Le 2019; Google 2020), trained on ImageNet: a small, quick judge.

Parameters carry the names of the published file: `_blocks.3._expand_conv.weight` and the batch norm
behind it, `_blocks.3._bn0`, are `params['blocks_3_expand_conv']`, see `params_from_reference`.
"""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import ArrayLike, Float, UInt8

from gdm_jax.evaluation.inception import BATCH_NORM, BATCH_NORM_EPSILON, PRECISION, check_shapes
from gdm_jax.typing import AnyArray

SIZE = 224
STAGES = (
  *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
  *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
"""Blocks, window, stride of the first block, expansion, and width of each stage."""


class Lite0(nn.Module):
  """The features before the classifier, and the classifier's logits."""

  @nn.compact
  def __call__(
    self, images: UInt8[AnyArray, 'n h w 3']
  ) -> dict[str, Float[AnyArray, 'n features']]:
    """Maps images of any size to {'1280', 'logits'}; the former are averages over positions.

    Images are resized to 224 x 224 (bicubic, smoothed where they shrink).
    """
    shape = (len(images), SIZE, SIZE, 3)
    x = jax.image.resize(images.astype(jnp.float32), shape, 'cubic', precision=PRECISION)
    x = jnp.clip(x, 0, 255)
    x = ConvNorm(32, 3, 2, name='conv_stem')((x - 127) / 128)
    for number, (window, stride, expansion, width) in enumerate(blocks()):
      x = _block(f'blocks_{number}', x, window, stride, expansion, width)
    features = ConvNorm(1280, 1, name='conv_head')(x).mean((1, 2))
    return {'1280': features, 'logits': nn.Dense(1000, precision=PRECISION, name='fc')(features)}


def blocks() -> Iterator[tuple[int, int, int, int]]:
  """Window, stride, expansion and width of every block."""
  for count, window, stride, expansion, width in STAGES:
    for i in range(count):
      yield window, stride if i == 0 else 1, expansion, width


def _block(name, x, window, stride, expansion, width):
  """Expand, filter every channel by itself, project; and add the input if the shapes agree."""
  y, inner = x, expansion * x.shape[-1]
  if expansion != 1:
    y = ConvNorm(inner, 1, name=f'{name}_expand_conv')(y)
  y = ConvNorm(inner, window, stride, groups=inner, name=f'{name}_depthwise_conv')(y)
  y = ConvNorm(width, 1, rectified=False, name=f'{name}_project_conv')(y)
  return x + y if x.shape == y.shape else y


class ConvNorm(nn.Module):
  """Convolution, batch norm (folded into a scale and a bias for each channel), and ReLU6."""

  features: int
  window: int
  stride: int = 1
  groups: int = 1
  rectified: bool = True

  @nn.compact
  def __call__(self, x: Float[AnyArray, 'n h w c']) -> Float[AnyArray, 'n h2 w2 features']:
    x = nn.Conv(
      self.features,
      (self.window, self.window),
      (self.stride, self.stride),
      feature_group_count=self.groups,
      use_bias=False,
      precision=PRECISION,
      name='conv',
    )(x)
    scale = self.param('scale', nn.initializers.ones, (self.features,))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x = x * scale + bias
    return jnp.clip(x, 0, 6) if self.rectified else x


def _norms() -> dict[str, tuple[str, str]]:
  """The published convolution and batch norm of every module, by the module's name."""
  names = {'conv_stem': ('_conv_stem', '_bn0'), 'conv_head': ('_conv_head', '_bn1')}
  for number, (_, _, expansion, _) in enumerate(blocks()):
    for norm, conv in enumerate(('expand_conv', 'depthwise_conv', 'project_conv')):
      if expansion != 1 or norm:
        block = f'_blocks.{number}._'
        names[f'blocks_{number}_{conv}'] = f'{block}{conv}', f'{block}bn{norm}'
  return names


def params_from_reference(weights: Mapping[str, ArrayLike]) -> dict:
  """Parameters of `Lite0`, float32, from those of the published network, by its names.

  Batch norm's statistics are folded in float64; its counters have no use here.

  Raises:
    ValueError: names the first parameter that is missing, has another shape, or is not known.
  """
  weights = {n: np.asarray(w) for n, w in weights.items() if not n.endswith('.num_batches_tracked')}
  check_shapes(weights, reference_shapes())
  params = {'fc': {'kernel': weights['_fc.weight'].T, 'bias': weights['_fc.bias']}}
  for module, (conv, norm) in _norms().items():
    gamma, beta, mean, variance = (np.float64(weights[f'{norm}.{p}']) for p in BATCH_NORM)
    scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    kernel = weights[f'{conv}.weight'].transpose(2, 3, 1, 0)
    params[module] = {'conv': {'kernel': kernel}, 'scale': scale, 'bias': beta - mean * scale}
  return jax.tree.map(np.float32, params)


def reference_shapes() -> dict[str, tuple[int, ...]]:
  """The shapes of the published parameters by name; convolutions are [out, in, h, w]."""
  image = jnp.zeros((1, SIZE, SIZE, 3), jnp.uint8)
  made = jax.eval_shape(Lite0().init, jax.random.key(0), image)['params']
  inputs, outputs = made['fc']['kernel'].shape
  shapes = {'_fc.weight': (outputs, inputs), '_fc.bias': (outputs,)}
  for module, (conv, norm) in _norms().items():
    *window, inputs, outputs = made[module]['conv']['kernel'].shape
    shapes[f'{conv}.weight'] = (outputs, inputs, *window)
    shapes |= {f'{norm}.{part}': (outputs,) for part in BATCH_NORM}
  return shapes
