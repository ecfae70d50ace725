"""Data sets in memory: scikit-learn's digits, a 2-D mixture, and arrays of your own."""

import dataclasses
import os

import numpy as np
from jaxtyping import Float, Int

from gdm_jax.data.base import ArraySource
from gdm_jax.data.units import LEVEL
from gdm_jax.runtime.errors import DataError


def digits() -> ArraySource:
  """The 1,797 handwritten digits of scikit-learn, 8 x 8 x 1, in a fixed random order."""
  from sklearn import datasets

  data = datasets.load_digits()
  # They are sorted by writer, so that an unshuffled slice would be of other writers.
  shuffled = np.random.default_rng(0).permutation(len(data.images))
  x = data.images[shuffled, :, :, None] / 8 - 1  # the pixels are 0..16
  label = data.target[shuffled].astype(np.int32)
  return ArraySource(x.astype(np.float32), label, 10, bin_width=1 / 8)


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A mixture of isotropic 2-D Gaussians, for the toy experiment of Fig. 1a.

  The default lies on the dark squares of a 4x4 chessboard: mean zero, about unit scale, four
  separate modes along either coordinate, and two along each given the other.
  """

  weights: tuple[float, ...] = (0.16, 0.14, 0.06, 0.15, 0.10, 0.08, 0.19, 0.12)
  means: tuple[tuple[float, float], ...] = (
    (-1.275, -1.275),
    (-1.275, 0.425),
    (-0.425, -0.425),
    (-0.425, 1.275),
    (0.425, -1.275),
    (0.425, 0.425),
    (1.275, -0.425),
    (1.275, 1.275),
  )
  std: float = 0.12

  def sample(
    self, rng: np.random.Generator, n: int
  ) -> tuple[Float[np.ndarray, 'n 2'], Int[np.ndarray, ' n']]:
    """Draws n points and the component that each came from."""
    component = rng.choice(len(self.weights), n, p=self.weights)
    return rng.normal(np.asarray(self.means)[component], self.std), component

  def log_density(self, points: Float[np.ndarray, 'n 2']) -> Float[np.ndarray, ' n']:
    """The natural logarithm of the density at each point."""
    distance = np.square(points[:, None] - np.asarray(self.means)).sum(-1)
    scale = np.log(self.weights) - np.log(2 * np.pi * self.std**2)
    return np.logaddexp.reduce(scale - distance / (2 * self.std**2), axis=-1)


def mixture() -> ArraySource:
  """100,000 points of `Mixture()`, shape (2, 1), labelled by component."""
  drawn = Mixture()
  points, component = drawn.sample(np.random.default_rng(0), 100_000)
  x = points[..., None].astype(np.float32)
  return ArraySource(x, component.astype(np.int32), len(drawn.weights))


def npz(name: str) -> ArraySource:
  """The arrays of 'npz:FILE': `x` [n, *grid, c] and, optionally, `label` [n].

  uint8 is images of 0..255; floats are taken unchanged. Raises DataError.
  """
  file = os.path.expanduser(name.removeprefix('npz:'))
  try:
    arrays = dict(np.load(file))
  except (OSError, ValueError) as error:
    raise DataError(f'data.name={name!r}: {file} is no readable npz file ({error})') from error
  x = arrays.get('x')
  if x is None or x.ndim < 3 or not len(x):
    raise DataError(f"data.name={name!r} needs an array 'x' of shape [n, *grid, channels]")
  label = arrays.get('label', np.zeros(len(x)))
  if label.shape != (len(x),):
    raise DataError(f"data.name={name!r}: 'label' has shape {label.shape}, 'x' {x.shape}")
  num_classes = int(label.max()) + 1 if 'label' in arrays else 0
  label = label.astype(np.int32)
  if x.dtype == np.uint8:
    return ArraySource(x, label, num_classes, LEVEL)
  return ArraySource(x.astype(np.float32), label, num_classes)
