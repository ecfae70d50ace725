"""What samples are compared by: pixels, a classifier's features, Inception's (FID), VGG-19's."""

import dataclasses
import functools
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
from gdm_jax.evaluation import archive, classifier, inception, vgg, weights
from gdm_jax.runtime import console, sharding
from gdm_jax.runtime.errors import ConfigError

Images = UInt8[Array, 'n h w c']


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
  """Features of images [n, h, w, c], c = 1 or 3: apply(params, images) -> [n, d]."""

  name: str
  params: dict
  apply: Callable[[dict, Images], Float[Array, 'n d']]

  @property
  def metric(self) -> str:
    """What a Frechet distance of them is called: FID with Inception's, and only with those."""
    return 'FID' if self.name == 'inception' else f'FD ({self.name})'

  @functools.cached_property
  def identity(self) -> str:
    """A digest of the weights: other weights, other features."""
    return archive.digest({self.name: self.params} if self.params else {})

  @functools.cache  # noqa: B019 (there are few, and they live as long as the program)
  def compiled(
    self, mesh: Mesh
  ) -> Callable[[Array], tuple[Float[Array, 'n d'], Bool[Array, ' n']]]:
    """Features of a batch over all devices, and which of its images are finite.

    The batch is uint8, or data in [-1, 1], which are rounded to uint8 first.
    """
    split, everywhere = sharding.batch_sharded(mesh), sharding.replicated(mesh)

    @functools.partial(jax.jit, in_shardings=(everywhere, split), out_shardings=split)
    def of(params, x):
      return self.apply(params, units.to_uint8(x)), jnp.isfinite(x).all((1, 2, 3))

    return functools.partial(of, jax.device_put(self.params, everywhere))


def find(config: ConfigDict, folder: pathlib.Path) -> Features:
  """The features of `evaluation.features`; a classifier is kept in the folder.

  Raises ConfigError, and DataError where the classifier's data are not there.
  """
  c, shape = config.evaluation, config.data.shape
  if not figures.is_image(shape):
    raise ConfigError(f'data.shape = {shape}: only images, grey or of three colours, are evaluated')
  if c.features == 'pixels':
    return Features(c.features, {}, lambda _, images: _flat(images))
  if c.features == 'classifier':
    source = build.data_source(config)
    about = {'data': config.data.name, 'split': config.data.split, 'shape': list(shape)}
    params, right = classifier.cached(folder / 'classifier.npz', source, about)
    console.log(f'classifier of {config.data.name}: {right:.1%} of its training examples right')
    model = classifier.Classifier(source.num_classes)
    return Features(c.features, params, lambda p, images: model.apply({'params': p}, images)[0])
  model, tap = {
    'inception': (inception.Inception(), '2048'),
    'vgg19': (vgg.VGG19(), 'relu5_4'),
  }[c.features]

  def apply(params, images):
    return model.apply({'params': params}, rgb(images))[tap]

  params = weights.load(c.features, c.weights)
  with blaming('evaluation.features', c.features):
    jax.eval_shape(apply, params, jax.ShapeDtypeStruct((1, *shape), jnp.uint8))
  return Features(c.features, params, apply)


def rgb(images: Images) -> UInt8[Array, 'n h w 3']:
  """Grey images with their channel repeated; colour images as they are."""
  return jnp.broadcast_to(images, (*images.shape[:-1], 3))


def _flat(images):
  return (images.astype(jnp.float32) / 127.5 - 1).reshape(len(images), -1)
