"""VGG-16 with the linear layers of LPIPS (Zhang et al. 2018): features, and a perceptual distance.

Parameters carry the names of the published file: `VGG16_0.Conv_2.kernel` is
`params['features_5']['kernel']`, and `NetLinLayer_0.Conv_0.kernel`, the weights of the channels of
`relu1_2`, `params['lpips_0']`.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, UInt8

from gdm_jax.evaluation.inception import check_shapes
from gdm_jax.evaluation.vgg import VGG
from gdm_jax.typing import AnyArray


class VGG16(VGG):
  """{'relu1_2', 'relu2_2', 'relu3_3', 'relu4_3', 'relu5_3'} of images."""

  blocks: tuple[tuple[int, int], ...] = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def lpips(
  params: dict, a: UInt8[AnyArray, 'n h w 3'], b: UInt8[AnyArray, 'n h w 3']
) -> Float[AnyArray, ' n']:
  """The perceptual distance between images of two sets, pair by pair; 0 for equal ones.

  The squared difference of features of unit length, weighted by channel, averaged over positions
  and summed over the five blocks. Raises ValueError for a side below 16 pixels.
  """

  def unit_maps(images):
    taps = VGG16().apply({'params': params}, images, method='maps').values()
    return [x / (jnp.sqrt((x**2).sum(-1, keepdims=True)) + 1e-10) for x in taps]

  distances = [
    ((x - y) ** 2 * params[f'lpips_{block}']).sum(-1).mean((1, 2))
    for block, (x, y) in enumerate(zip(unit_maps(a), unit_maps(b), strict=True))
  ]
  return sum(distances)


def params_from_reference(weights: Mapping[str, ArrayLike]) -> dict:
  """Parameters of `VGG16` and of `lpips`, float32, from the published ones, by their names.

  Raises:
    ValueError: names the first parameter that is missing, has another shape, or is not known.
  """
  check_shapes(weights, reference_shapes())
  params = {f'lpips_{i}': weights[f'{name}.kernel'][0, 0, :, 0] for i, name in _linear().items()}
  for module, name in _convolutions().items():
    params[module] = {kind: weights[f'{name}.{kind}'] for kind in ('kernel', 'bias')}
  return jax.tree.map(np.float32, params)


def reference_shapes() -> dict[str, tuple[int, ...]]:
  """The shapes of the published parameters by name; convolutions are [h, w, in, out]."""
  image = jnp.zeros((1, 16, 16, 3), jnp.uint8)
  made = jax.eval_shape(VGG16().init, jax.random.key(0), image)['params']
  shapes = {
    f'{name}.{kind}': made[module][kind].shape
    for module, name in _convolutions().items()
    for kind in ('kernel', 'bias')
  }
  widths = [width for width, _ in VGG16().blocks]
  return shapes | {f'{name}.kernel': (1, 1, widths[i], 1) for i, name in _linear().items()}


def _convolutions():
  """The published name of every convolution, by its module."""
  layer, names = 0, {}
  for _, count in VGG16().blocks:
    for _ in range(count):
      names[f'features_{layer}'] = f'VGG16_0.Conv_{len(names)}'
      layer += 2
    layer += 1  # the pool
  return names


def _linear():
  return {i: f'NetLinLayer_{i}.Conv_0' for i in range(len(VGG16().blocks))}
