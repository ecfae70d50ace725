"""Small groupwise models with random parameters, of any process."""

import jax
import jax.numpy as jnp
import numpy as np

from gdm_jax import conditioning
from gdm_jax.conditioning import Predictor
from gdm_jax.models import ContextUNet, GroupCausal
from gdm_jax.process import Process


def predictor(process: Process, channels: int = 1, patch: int = 1, **options) -> Predictor:
  """Three narrow blocks of two heads."""
  elements = conditioning.elements(process, channels)
  mix = conditioning.mix(process.path)
  options = {'width': 16, 'depth': 3, 'heads': 2, **options}
  network = GroupCausal(channels, elements, mix, patch=patch, **options)
  return Predictor(network, process, 'pixel' if process.basis.is_pixel else 'frequency')


def context_predictor(process: Process, channels: int = 1, **options) -> Predictor:
  """Two U-Nets of one resolution, four channels wide."""
  elements = conditioning.elements(process, channels)
  options = {
    **{'channels': 4, 'multipliers': (1,), 'blocks': 1, 'attention': (), 'features': 3},
    **{'denoiser_channels': 4, 'denoiser_multipliers': (1,), **options},
  }
  return Predictor(
    ContextUNet(channels, elements, conditioning.mix(process.path), **options), process
  )


def random_params(model: Predictor, size: float = 0.3, dtype=jnp.float32) -> dict:
  """Parameters none of which is zero, as many are at first; norms scale by about 1."""
  rng = np.random.default_rng(0)

  def draw(path, shape):
    centre = jax.tree_util.keystr(path).endswith("['scale']")
    return jnp.asarray(centre + size * rng.normal(size=shape.shape), dtype)

  shapes = jax.eval_shape(model.init, jax.random.key(0))
  return jax.tree_util.tree_map_with_path(draw, shapes)
