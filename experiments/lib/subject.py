"""What the experiments on GDM-F's latents share (Section 4.2 to 4.5): a trained model and its data.

Images are encoded, their latents edited and decoded, and the results compared by their features.
"""

import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from experiments.lib.report import Table
from experiments.lib.study import Model, Study
from gdm_jax import build, figures, sampling
from gdm_jax.basis import Basis
from gdm_jax.data.units import from_uint8
from gdm_jax.evaluation import classifier, evaluator, features
from gdm_jax.evaluation.summary import gather_to_host
from gdm_jax.generation import editing
from gdm_jax.generation.generator import Generator
from gdm_jax.latents import Latent, Mask
from gdm_jax.runtime import errors
from gdm_jax.runtime.batching import padded_batches
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.solvers import ReversiblePair

SETTINGS = (
  *('checkpoint', 'parameters', 'strategy', 'order', 'cuts', 'steps', 'rho', 'solver'),
  *('data', 'split'),
)
PERCEIVED = ('features', 'identity')  # of `evaluation.features`

READ = 1000  # images that are read at once

Images = Float[np.ndarray, 'n *grid c']


class Subject:
  """A trained model, real images, and the rows of workdir/NAME/results.csv.

  Images are encoded and decoded by `edit.solver` along the table of `config.sampling`.
  """

  def __init__(
    self,
    name: str,
    config: ConfigDict,
    workdir: pathlib.Path,
    keys: Sequence[str] = (),
    values: Sequence[str] = (),
    perceived: bool = True,
  ):
    """keys: the columns of results.csv that identify a measurement; values: those of its results.

    perceived: whether they depend on `evaluation.features`. Raises ConfigError.
    """
    self.model = Model(config, workdir, workdir)
    c = self.config = self.model.config
    system, checkpoint, self._mesh = self.model.system, self.model.checkpoint, self.model.mesh
    strategy, self.order = build.sampling_order(c, system.strategies)
    self.masks: dict[str, Mask] = editing.masks(system, strategy)
    solver = build.solver(c, 'edit.solver')
    self._generator = Generator(system, c.data.shape, solver, self._mesh, cache=c.sampling.cache)
    self._arguments = checkpoint.params, build.sampling_table(c, system)
    self._key = {
      **evaluator.provenance(c, system, checkpoint),
      **{'solver': c.edit.solver, 'data': c.data.name},
      'split': c.evaluation.split or c.data.split,
    }
    if perceived:
      self._key |= {'features': self.features.name, 'identity': self.features.fingerprint}
    common = (*SETTINGS, *PERCEIVED * perceived)
    self._study = Study(name, workdir, (*common, *keys), values)
    self.folder = self._study.folder

  @property
  def basis(self) -> Basis:
    """What the latents are edited in."""
    return self.model.system.process.basis

  def require_frequency_basis(self):
    """Raises ConfigError if ranks are no frequencies."""
    if self.basis.is_pixel:
      raise ConfigError("basis.name = 'pixel': its ranks are no frequencies; take cosine or blur")

  @functools.cached_property
  def features(self) -> features.Features:
    """`evaluation.features`."""
    return features.load_features(self.config, self.model.folder / evaluator.FOLDER)

  def measure(
    self, function: Callable[..., Mapping[str, object]], cells: Iterable[Mapping[str, object]]
  ) -> pd.DataFrame:
    """The row of each cell, a value of every key: existing, or measured by function(**cell)."""
    rows = [
      self._study.cells.measure({**self._key, **cell}, functools.partial(function, **cell))
      for cell in cells
    ]
    return pd.DataFrame(rows)

  @functools.cached_property
  def source(self):
    """The real images: those of `evaluation.split`, else of `data.split`."""
    return build.data_source(self.config, 'evaluation.split', memory_gib=0)

  def load(self, numbers: Int[np.ndarray, ' n']) -> tuple[Images, Int[np.ndarray, ' n']]:
    """Real images by number, in the model's units, and their labels."""
    batch = self.source[numbers]
    return np.asarray(from_uint8(batch['x'])), batch['label']

  def choose_images(self, count: int) -> Int[np.ndarray, ' n']:
    """Numbers of real images, drawn with seed 0. Raises ConfigError if there are fewer."""
    if count > len(self.source):
      raise ConfigError(
        f'{count} images wanted: evaluation.split = {self._key["split"]!r} has {len(self.source)}'
      )
    return np.random.default_rng(0).permutation(len(self.source))[:count]

  def choose_pairs(
    self, count: int, sets: tuple[Sequence[int], Sequence[int]] | None = None
  ) -> Int[np.ndarray, '2 n']:
    """Numbers of real images two by two, drawn with seed 0 and with replacement.

    sets: the classes of the first images and of the second ones, as if they were two data sets;
    otherwise the two are of different classes if there are several. Raises ConfigError if there is
    only one image, or none of a set.
    """
    rng, size = np.random.default_rng(0), len(self.source)
    if size < 2:
      raise ConfigError(f'evaluation.split = {self._key["split"]!r}: one image makes no pairs')
    if sets:
      inside = [np.flatnonzero(np.isin(self.labels, classes)) for classes in sets]
      if not all(map(len, inside)):
        raise ConfigError(f'{sets[0]} and {sets[1]}: there are no images of one of these classes')
      return np.stack([rng.choice(numbers, count) for numbers in inside])
    kinds = self.labels if len(np.unique(self.labels)) > 1 else np.arange(size)
    first = rng.integers(size, size=count)
    second = [rng.choice(np.flatnonzero(kinds != kinds[i])) for i in first]
    return np.stack([first, second])

  @functools.cached_property
  def labels(self) -> Int[np.ndarray, ' n']:
    """Of all real images; 0 if they have none."""
    if self.source.num_classes < 2:
      return np.zeros(len(self.source), int)
    numbers = np.arange(len(self.source))
    parts = np.split(numbers, range(READ, len(numbers), READ))
    return np.concatenate([self.source[part]['label'] for part in parts])

  def captions(self, numbers: Int[np.ndarray, ' n']) -> list[str]:
    """Captions of real images: their class, if they have one, and their number."""
    if self.source.num_classes < 2:
      return [f'{number}' for number in numbers]
    labels = self.source[np.asarray(numbers)]['label']
    return [f'class {label} ({n})' for label, n in zip(labels, numbers, strict=True)]

  def noise(self, first: int, count: int) -> Images:
    """Latents of the seeds from `first` on."""
    seeds = np.arange(first, first + count, dtype=np.uint32)
    return np.asarray(sampling.latents(seeds, tuple(self.config.data.shape)))

  def encode(self, x: Images) -> Images | ReversiblePair:
    """Latents of images. Raises DivergedError if one is not finite."""
    batch = self.config.sampling.batch
    return check_finite(self._generator.encode(*self._arguments, x, batch))

  def decode(self, z: Images | ReversiblePair) -> Images:
    """Images of latents. Raises DivergedError if one is not finite."""
    batch = self.config.sampling.batch
    return check_finite(self._generator.decode(*self._arguments, z, batch))

  def features_of(self, x: Images) -> Float[np.ndarray, 'n d']:
    """Features of images, rounded to bytes."""
    extract, parts = self.features.jitted(self._mesh), []
    for indices, valid in padded_batches(len(x), self.config.sampling.batch, self._mesh.size):
      extracted, _ = extract(x[indices])
      parts.append(gather_to_host(extracted).astype(np.float64)[:valid])
    return np.concatenate(parts)

  @property
  def classified(self) -> bool:
    """Whether the features tell classes."""
    return self.features.name == 'classifier'

  def classes(self, extracted: Float[np.ndarray, 'n d']) -> Int[np.ndarray, ' n']:
    """The classes that the classifier sees in images, from their features."""
    return classifier.classes(self.features.params, extracted)

  def sheet(self, name: str, lines: Sequence[editing.Line]) -> pathlib.Path:
    """Draws lines of edited latents to NAME.png."""
    file = self.folder / f'{name}.png'
    figures.sheet(file, editing.decoded(lines, self.decode))
    return file

  def publish(
    self,
    doc: str,
    table: Table,
    findings: Sequence[str],
    pictures: Sequence[pathlib.Path],
    rows: pd.DataFrame,
  ):
    """Writes report.html and prints table and findings (`report.publish`)."""
    self._study.publish(doc, table, findings, pictures, rows, self.config)


def edit(function: Callable[..., Latent], *z: Images | ReversiblePair) -> Images | ReversiblePair:
  """An edit of latents [n, *grid, c], or of both members of a reversible solver's pairs alike."""
  return jax.tree.map(lambda *leaves: np.asarray(function(*map(jnp.asarray, leaves))), *z)


def check_finite(x: Images | ReversiblePair) -> Images | ReversiblePair:
  """x. Raises DivergedError if it is not all finite."""
  for leaf in jax.tree.leaves(x):
    finite = np.isfinite(leaf).all(tuple(range(1, leaf.ndim)))
    errors.check_finite(finite, lambda i: f'image or latent {i}')
  return x


def data_name(rows: pd.DataFrame) -> str:
  """The name and the split of the real images that rows were measured on."""
  return f'{rows["data"].iloc[0]}, {rows["split"].iloc[0]}'


def share(flags: Bool[np.ndarray, ' *n']) -> tuple[float, float]:
  """How many of the flags are set, and the standard error of that.

  Variants of the same image are not independent: only the n images count as such.
  """
  each = flags.reshape(len(flags), -1).mean(1)
  return float(each.mean()), float(each.std(ddof=1) / len(each) ** 0.5)


def distance(a: Float[np.ndarray, 'n d'], b: Float[np.ndarray, 'n d']) -> float:
  """The root mean square distance between features."""
  return float(np.sqrt(((a - b) ** 2).sum(-1).mean()))


def variance(features: Float[np.ndarray, 'groups variants d']) -> float:
  """E || phi - E phi ||^2 of the variants of a group, unbiased, the mean over groups (Fig. 4a)."""
  return float(features.var(axis=1, ddof=1).sum(-1).mean())


def agreement(classes: Int[np.ndarray, 'groups variants']) -> float:
  """How often two variants of a group are of the same class, unbiased, the mean over groups."""
  size = classes.shape[1]
  same = [np.sum(n * (n - 1)) for n in (np.bincount(group) for group in classes)]
  return float(np.mean(same) / (size * (size - 1)))
