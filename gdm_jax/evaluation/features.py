"""Features to compare images by: pixels, a classifier's, or those of a published network."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, UInt8
from ml_collections import ConfigDict

from gdm_jax import build, figures
from gdm_jax.config import blaming
from gdm_jax.data import units
from gdm_jax.evaluation import archive, classifier, inception, lite0, vgg, vgg16, weights
from gdm_jax.runtime import console, memory, sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.typing import AnyArray

Images = UInt8[AnyArray, 'n h w c']


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
  """Features of images [n, h, w, c], c = 1 or 3: apply(params, images) -> [n, d]."""

  name: str
  params: dict
  apply: Callable[[dict, Images], Float[AnyArray, 'n d']]

  @property
  def metric(self) -> str:
    """The name of a Frechet distance of them: FID with Inception's, and only with those."""
    return 'FID' if self.name == 'inception' else f'FD ({self.name})'

  @functools.cached_property
  def fingerprint(self) -> str:
    """Of the weights: other weights, other features."""
    return archive.digest({self.name: self.params} if self.params else {})

  @functools.cache  # noqa: B019 (there are few, and they live as long as the program)
  def jitted(
    self, mesh: Mesh
  ) -> Callable[[Array], tuple[Float[AnyArray, 'n d'], Bool[AnyArray, ' n']]]:
    """Features of a batch over all devices, and which of its images are finite.

    The batch is uint8, or data in [-1, 1], which are rounded to uint8 first.
    """
    batch_sharded, replicated = sharding.batch_sharded(mesh), sharding.replicated(mesh)

    @functools.partial(
      jax.jit, in_shardings=(replicated, batch_sharded), out_shardings=batch_sharded
    )
    def extract(params, x):
      return self.apply(params, units.to_uint8(x)), jnp.isfinite(x).all((1, 2, 3))

    return functools.partial(extract, jax.device_put(self.params, replicated))


def load_features(config: ConfigDict, folder: pathlib.Path) -> Features:
  """The features of `evaluation.features`; a classifier is kept in the folder.

  Raises ConfigError, and DataError if the classifier's data do not exist.
  """
  name, shape = config.evaluation.features, config.data.shape
  if name not in FEATURES:
    raise ConfigError(f'evaluation.features = {name!r}: there are {", ".join(FEATURES)}')
  if not figures.is_image(shape):
    raise ConfigError(f'data.shape = {shape}: only images, grey or of three colours, are evaluated')
  return FEATURES[name](config, folder)


def _pixels(config, folder):
  d = math.prod(config.data.shape)
  needed = 4 * 8 * d**2  # two covariances in float64, and their roots
  what = f'evaluation.features = pixels: a covariance of {d:,} pixels'
  memory.require(what, needed, '; take classifier or lite0')
  return Features('pixels', {}, lambda _, images: units.from_uint8(images).reshape(len(images), -1))


def _classifier(config, folder):
  source = build.data_source(config)
  params, accuracy = classifier.cached(folder / 'classifier.npz', source, config.data.name)
  console.log(f'classifier of {config.data.name}: {accuracy:.1%} of its training examples right')
  model = classifier.Classifier(source.num_classes)
  return Features('classifier', params, lambda p, images: model.apply({'params': p}, images)[0])


def _published(name, model, tap):
  """A published network of colour images, whose weights are those of `evaluation.weights`."""

  def load(config, folder):
    params = weights.load(name, config.evaluation.weights)
    with blaming('evaluation.features', name):
      images = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.uint8)
      jax.eval_shape(apply, params, images)
    return Features(name, params, apply)

  def apply(params, images):
    return model.apply({'params': params}, rgb(images))[tap]

  return load


FEATURES: dict[str, Callable[[ConfigDict, pathlib.Path], Features]] = {
  'pixels': _pixels,
  'classifier': _classifier,
  'inception': _published('inception', inception.Inception(), '2048'),
  'lite0': _published('lite0', lite0.Lite0(), '1280'),
  'vgg16': _published('vgg16', vgg16.VGG16(), 'relu5_3'),
  'vgg19': _published('vgg19', vgg.VGG19(), 'relu5_4'),
}
"""By `evaluation.features`; the folder keeps what is trained or computed once."""


def rgb(images: Images) -> UInt8[AnyArray, 'n h w 3']:
  """Grey images with their channel repeated; colour images unchanged."""
  return jnp.broadcast_to(images, (*images.shape[:-1], 3))
