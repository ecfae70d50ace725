"""Data sets in memory: scikit-learn's digits, pairs of them, a 2-D mixture, and your own arrays."""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Float, Int

from gdm_jax.data.base import ArraySource, count_classes
from gdm_jax.data.units import LEVEL
from gdm_jax.runtime import console
from gdm_jax.runtime.errors import DataError
from gdm_jax.runtime.files import DamagedFile, read_arrays

PAIRS, TOTAL = 20_000, 9  # of digits, and what their labels add up to
MOST_DEVIATION = 5.0  # of floats; beyond it they are not of unit scale


def digits() -> ArraySource:
  """The 1,797 handwritten digits of scikit-learn, 8 x 8 x 1, in a fixed random order."""
  from sklearn import datasets

  data = datasets.load_digits()
  # They are sorted by writer, so that an unshuffled slice would be of other writers.
  shuffled = np.random.default_rng(0).permutation(len(data.images))
  x = data.images[shuffled, :, :, None] / 8 - 1  # the pixels are 0..16
  label = data.target[shuffled].astype(np.int32)
  return ArraySource(x.astype(np.float32), label, 10, bin_width=1 / 8)


def digit_pairs() -> ArraySource:
  """20,000 pairs of `digits` side by side, 8 x 16 x 1, whose labels add up to nine.

  Every digit is as likely on the left as it is in `digits`, whose label the pair has.
  """
  single, rng = digits(), np.random.default_rng(0)
  left = rng.integers(len(single), size=PAIRS)
  alike = [np.flatnonzero(single.label == label) for label in range(single.num_classes)]
  right = np.array([rng.choice(alike[TOTAL - label]) for label in single.label[left]])
  x = np.concatenate([single.x[left], single.x[right]], axis=2)
  return ArraySource(x, single.label[left], single.num_classes, single.bin_width)


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
  """The arrays of 'npz:FILE': `x` [n, *grid, c] and, optionally, `label` [n]; or x in an npy file.

  uint8 is images of 0..255; floats are taken unchanged, and should be of about unit scale. The
  range that was found is printed. Raises DataError, in one line, for a file that cannot be read and
  for values that no model learns from.
  """
  file = pathlib.Path(name.removeprefix('npz:')).expanduser()

  def error(problem):
    return DataError(f'data.name={name!r}: {problem}')

  try:
    arrays = read_arrays(file)
  except DamagedFile as damage:
    raise error(f'{file} cannot be read ({damage})') from None
  x = arrays.get('x', arrays.get(''))
  if x is None or x.ndim < 3 or not x.size:
    found = ', '.join(f'{key} {value.shape}' for key, value in arrays.items()) or 'nothing'
    raise error(f"{file} needs an array 'x' of shape [n, *grid, channels]; it holds {found}")
  if problem := _problem_of_values(x):
    raise error(f"{file}: 'x' {problem}")
  label, num_classes = np.zeros(len(x), np.int32), 0
  if 'label' in arrays:
    label = arrays['label']
    if problem := _problem_of_labels(label, len(x)):
      raise error(f"{file}: 'label' {problem}")
    label = label.astype(np.int32)
    num_classes = count_classes(label)
  console.log(f'{file}: {len(x):,} examples {x.shape[1:]}, {x.dtype} of {x.min():g} to {x.max():g}')
  if x.dtype == np.uint8:
    return ArraySource(x, label, num_classes, LEVEL)
  return ArraySource(x.astype(np.float32), label, num_classes)


def _problem_of_values(x):
  """Why nothing can be learnt from these values; '' if it can."""
  if x.dtype != np.uint8 and x.dtype.kind != 'f':
    hint = 'take x.astype(np.uint8) of images of 0 to 255' if x.dtype.kind in 'iub' else ''
    return f'is {x.dtype}: must be uint8, of 0 to 255, or floats' + f'; {hint}' * bool(hint)
  low, high = x.min(), x.max()
  if not np.isfinite([low, high]).all():
    first = int(np.argmin(np.isfinite(x.reshape(len(x), -1)).all(1)))
    return f'holds NaN or infinity, first in example {first}'
  if low == high:
    return f'is {low:g} everywhere'
  if x.dtype != np.uint8 and (deviation := float(x.std(dtype=np.float64))) > MOST_DEVIATION:
    return (
      f'is {x.dtype} of {low:g} to {high:g}, a standard deviation of {deviation:.3g}: floats must '
      'be of about unit scale; give images of 0 to 255 as uint8, or x / 127.5 - 1'
    )
  return ''


def _problem_of_labels(label, count):
  """Why these are no numbers of classes; '' if they are."""
  if label.shape != (count,):
    return f'has shape {label.shape}, and there are {count:,} examples'
  if label.dtype.kind not in 'iuf':
    return (
      f'holds {label.dtype}, such as {str(label[0])!r}: must be numbers from 0 on, as '
      'np.unique(label, return_inverse=True)[1] gives'
    )
  # Comparisons with NaN are False.
  if not (np.all(label == np.floor(label)) and label.min() >= 0 and label.max() < max(count, 2)):
    return f'is {label.min():g} to {label.max():g}: must be whole numbers from 0 to classes - 1'
  return ''
