"""A small classifier of the data's own labels: features that need no download."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils
from jaxtyping import Float, Int, UInt8

from gdm_jax.data import pipeline, units
from gdm_jax.data.base import Source
from gdm_jax.data.contents import Contents
from gdm_jax.evaluation import archive
from gdm_jax.runtime import distributed
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.typing import AnyArray

WIDTHS = (32, 64, 128, 128)
IMAGES = 60_000  # seen in training, whatever the data: 1.5 minutes on two cores at 28 x 28
BATCH = 128
RATE = 2e-3  # of Adam, falling to 0 along a half cosine


class Classifier(nn.Module):
  """Four convolutions and a mean over positions, which are the features; then the logits."""

  classes: int

  @nn.compact
  def __call__(
    self, images: UInt8[AnyArray, 'n h w c']
  ) -> tuple[Float[AnyArray, 'n d'], Float[AnyArray, 'n classes']]:
    x = units.from_uint8(images)
    for i, width in enumerate(WIDTHS):
      strides = 2 if i else 1
      # No normalisation: it would hide blur and noise, which change how strong features are.
      conv = nn.Conv(
        *(width, (3, 3), strides),
        precision='highest',
        kernel_init=nn.initializers.he_normal(),
        name=f'conv{i}',
      )
      x = nn.relu(conv(x))
    features = x.mean((1, 2))
    return features, nn.Dense(self.classes, precision='highest', name='logits')(features)


def classes(params: dict, features: Float[np.ndarray, 'n d']) -> Int[np.ndarray, ' n']:
  """The class that the classifier gives to images, from their features."""
  logits = params['logits']
  return (features @ np.asarray(logits['kernel']) + np.asarray(logits['bias'])).argmax(-1)


def train(source: Source, seed: int = 0) -> tuple[dict, float]:
  """Parameters, and their accuracy on the last tenth of the training examples."""
  model = Classifier(source.num_classes)
  steps = IMAGES // BATCH
  optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, x, label):
    params, memory = state

    def loss(params):
      logits = model.apply({'params': params}, x)[1]
      cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
      return cross_entropy, (logits.argmax(-1) == label).mean()

    gradient, correct = jax.grad(loss, has_aux=True)(params)
    updates, memory = optimizer.update(gradient, memory)
    return (optax.apply_updates(params, updates), memory), correct

  params = model.init(jax.random.key(seed), np.zeros((1, *source.shape), np.uint8))['params']
  state, accuracies = (params, optimizer.init(params)), []
  batches = pipeline.batches(source, BATCH, seed)
  for _ in range(steps):
    batch = next(batches)
    state, accuracy = step(state, units.to_uint8(batch['x']), batch['label'])
    accuracies.append(accuracy)
  return state[0], float(jnp.mean(jnp.stack(accuracies[-steps // 10 :])))


def cached(file: pathlib.Path, source: Source, name: str) -> tuple[dict, float]:
  """The classifier of a file, or a new one that is written to it; and its accuracy.

  A file made from another source is replaced. Every process gets the parameters of process 0.
  name: of the data. Raises ConfigError if they have no labels, or the file is damaged.
  """
  if not source.num_classes:
    raise ConfigError(
      f"evaluation.features = 'classifier' needs labels, and {name} has none; "
      'take pixels, or inception'
    )
  about = {'data': Contents.of(source).fingerprint, 'shape': source.shape}
  about = json.dumps({**about, 'widths': WIDTHS, 'images': IMAGES}, sort_keys=True)
  try:
    arrays = archive.read(file) if file.exists() else {}
  except archive.Damaged as error:
    raise ConfigError(f'{file} is damaged ({error}); remove it to train another') from None
  if distributed.from_process_0(str(arrays.pop('about', '')) == about):
    accuracy = float(arrays.pop('right'))
    return unflatten_dict(arrays, sep='/'), accuracy
  params, accuracy = multihost_utils.broadcast_one_to_all(train(source))
  if distributed.is_primary():
    archive.write(file, **flatten_dict(params, sep='/'), about=about, right=accuracy)
  return params, float(accuracy)
