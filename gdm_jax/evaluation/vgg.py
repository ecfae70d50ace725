"""The convolutional part of VGG-16 and VGG-19 (Simonyan and Zisserman 2015), perceptual metrics.

`features.0.weight`, as torchvision calls it, is `params['features_0']['kernel']`.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import ArrayLike, Float, UInt8

from gdm_jax.evaluation.inception import PRECISION, check_shapes
from gdm_jax.typing import AnyArray

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, red, green, blue


class VGG(nn.Module):
  """Features of images after the last ReLU of every block.

  blocks: the width and the number of convolutions of each.
  """

  blocks: tuple[tuple[int, int], ...]

  def __call__(
    self, images: UInt8[AnyArray, 'n h w 3']
  ) -> dict[str, Float[AnyArray, 'n features']]:
    """Maps images to {'relu1_2', 'relu2_2', ...}, by block and convolution.

    Each is an average over positions, and as wide as its block.

    Raises:
      ValueError: a side is below the 16 pixels that become the last block's one.
    """
    return {name: tap.mean((1, 2)) for name, tap in self.maps(images).items()}

  @nn.compact
  def maps(
    self, images: UInt8[AnyArray, 'n h w 3']
  ) -> dict[str, Float[AnyArray, 'n _ _ features']]:
    """The same before the average."""
    if min(images.shape[1:3]) < 16:
      raise ValueError(f'images of {images.shape[1]}x{images.shape[2]}: VGG needs 16x16')
    x = (images.astype(jnp.float32) / 255 - jnp.array(MEAN)) / jnp.array(DEVIATION)
    taps, layer = {}, 0
    for block, (features, convolutions) in enumerate(self.blocks, 1):
      if block > 1:
        x = nn.max_pool(x, (2, 2), (2, 2))
        layer += 1
      for _ in range(convolutions):
        x = nn.relu(nn.Conv(features, (3, 3), precision=PRECISION, name=f'features_{layer}')(x))
        layer += 2
      taps[f'relu{block}_{convolutions}'] = x
    return taps


class VGG19(VGG):
  """{'relu1_2', 'relu2_2', 'relu3_4', 'relu4_4', 'relu5_4'} of images."""

  blocks: tuple[tuple[int, int], ...] = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


def params_from_reference(weights: Mapping[str, ArrayLike]) -> dict:
  """Parameters of `VGG19`, float32, from torchvision's, by its names; its classifier is ignored.

  Raises:
    ValueError: names the first parameter that is missing, has another shape, or is not known.
  """
  weights = {n: np.float32(w) for n, w in weights.items() if n.startswith('features.')}
  check_shapes(weights, reference_shapes())
  params = {}
  for name, value in weights.items():
    module, _, kind = name.replace('.', '_', 1).partition('.')
    leaf = 'bias' if kind == 'bias' else 'kernel'
    params.setdefault(module, {})[leaf] = value if value.ndim == 1 else value.transpose(2, 3, 1, 0)
  return params


def reference_shapes() -> dict[str, tuple[int, ...]]:
  """The shapes of the published parameters by name; convolutions are [out, in, h, w]."""
  image = jnp.zeros((1, 16, 16, 3), jnp.uint8)
  made = jax.eval_shape(VGG19().init, jax.random.key(0), image)['params']
  shapes = {}
  for module, params in made.items():
    module = module.replace('_', '.')
    *window, inputs, outputs = params['kernel'].shape
    shapes |= {f'{module}.weight': (outputs, inputs, *window), f'{module}.bias': (outputs,)}
  return shapes
