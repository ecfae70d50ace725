"""A trained model whose latents are studied: encoded, edited, decoded, and seen as a network sees.

`Subject` is what the experiments on GDM-F's latents (Section 4.2 to 4.5) have in common.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from experiments import report, study
from gdm_jax import build, editing, figures, sampling
from gdm_jax.basis import Basis
from gdm_jax.config import ConfigError, naming
from gdm_jax.evaluation import classifier, evaluator, features
from gdm_jax.evaluation.cells import Cells
from gdm_jax.generate import Generator
from gdm_jax.latents import Latent, Mask
from gdm_jax.solvers import Pair
from gdm_jax.training.step import to_model_units

SETTINGS = (
  *('checkpoint', 'parameters', 'strategy', 'order', 'cuts', 'steps', 'solver'),
  *('data', 'split'),
)
PERCEIVED = ('features', 'identity')  # of what is seen by a network

Images = Float[np.ndarray, 'n *grid c']


class Subject(study.Model):
  """A model with its latents, and the rows of workdir/NAME/results.csv, which a rerun completes.

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
    """keys: columns that tell a cell from another; values: those that say what came out.

    perceived: whether they depend on `evaluation.features`. Raises ConfigError.
    """
    self.results = workdir / name
    super().__init__(config, workdir, workdir)
    c = self.config
    strategy, _ = build.order_of(c, self.system.strategies)
    self.masks: dict[str, Mask] = editing.masks(self.system, strategy)
    self.table = build.generation(c, self.system.strategies)
    with naming('edit.solver', c.edit.solver):
      self._generator = Generator(self.system, c.data.shape, c.edit.solver, self.mesh)
    self._key = {
      **evaluator.settings(c, self.system, self.weights),
      **{'solver': c.edit.solver, 'data': c.data.name},
      'split': c.evaluation.split or c.data.split,
    }
    if perceived:
      self._key |= {'features': self.features.name, 'identity': self.features.identity}
    common = (*SETTINGS, *PERCEIVED * perceived)
    self.cells = Cells(self.results / 'results.csv', (*common, *keys), values)

  @property
  def basis(self) -> Basis:
    return self.system.process.basis

  @functools.cached_property
  def features(self) -> features.Features:
    """What images are seen by."""
    return features.find(self.config, self.folder / 'evaluation')

  def cell(self, measure: Callable[[], Mapping[str, object]], **key) -> dict[str, str]:
    """The row of a key: measured, unless it is there."""
    key = {**self._key, **key}
    if key not in self.cells:
      found = {k: f'{v:.6g}' if isinstance(v, float) else v for k, v in measure().items()}
      self.cells.add({**key, **found})
    return self.cells.get(key)

  @functools.cached_property
  def source(self):
    """The real images: those of `evaluation.split`, else of `data.split`."""
    return build.source(self.config, 'evaluation.split', memory_gib=0)

  def real(self, numbers: Int[np.ndarray, ' n']) -> tuple[Images, Int[np.ndarray, ' n']]:
    """Real images by number, in the model's units, and their labels."""
    batch = self.source[numbers]
    return np.asarray(to_model_units(batch['x'])), batch['label']

  def some(self, count: int) -> Int[np.ndarray, ' n']:
    """Numbers of real images, drawn with seed 0. Raises ConfigError where there are fewer."""
    if count > len(self.source):
      raise ConfigError(f'{count} images wanted; {self._key["split"]} has {len(self.source)}')
    return np.random.default_rng(0).permutation(len(self.source))[:count]

  def pairs(self, count: int) -> Int[np.ndarray, '2 n']:
    """Numbers of real images two by two, drawn with seed 0; of different classes, if there are any.

    Raises ConfigError where there are no two such images.
    """
    rng, size = np.random.default_rng(0), len(self.source)
    a, b = rng.integers(size, size=(2, count))
    kinds = self._labels if self.source.num_classes > 1 else (lambda numbers: numbers)
    for _ in range(100):
      again = kinds(a) == kinds(b)
      if not again.any():
        return np.stack([a, b])
      b[again] = rng.integers(size, size=again.sum())
    raise ConfigError(f'{self._key["split"]}: hardly any two images of different classes')

  def _labels(self, numbers):
    return self.source[numbers]['label']

  def names(self, numbers: Int[np.ndarray, ' n']) -> list[str]:
    """Captions of real images: their class, where they have one, and their number."""
    labels = self._labels(numbers) if self.source.num_classes > 1 else None
    return [
      f'{number}' if labels is None else f'class {labels[i]} ({number})'
      for i, number in enumerate(numbers)
    ]

  @property
  def about(self) -> str:
    """The real images, in words."""
    return f'{self._key["data"]}, {self._key["split"]}'

  def noise(self, first: int, count: int) -> Images:
    """Latents of the seeds from `first` on."""
    seeds = np.arange(first, first + count, dtype=np.uint32)
    return np.asarray(sampling.latents(seeds, tuple(self.config.data.shape)))

  def encode(self, x: Images) -> Images | Pair:
    return self._generator.encode(self.weights.params, self.table, x, self.config.sampling.batch)

  def decode(self, z: Images | Pair) -> Images:
    return self._generator.decode(self.weights.params, self.table, z, self.config.sampling.batch)

  def perceive(self, x: Images) -> Float[np.ndarray, 'n d']:
    """Features of images, rounded to bytes. Raises EvaluationError where one is not finite."""
    count, found = len(x), []
    batch = -(-min(self.config.sampling.batch, count) // self.mesh.size) * self.mesh.size
    for first in range(0, count, batch):
      part = x[first : first + batch]
      seen, finite = self.features.compiled(self.mesh)(np.resize(part, (batch, *x.shape[1:])))
      evaluator.check_finite(np.asarray(finite)[: len(part)], np.arange(first, first + len(part)))
      found.append(np.asarray(seen, np.float64)[: len(part)])
    return np.concatenate(found)

  @property
  def classified(self) -> bool:
    """Whether the features tell classes."""
    return self.features.name == 'classifier'

  def classes(self, seen: Float[np.ndarray, 'n d']) -> Int[np.ndarray, ' n']:
    """What the classifier takes images for, by their features."""
    return classifier.classes(self.features.params, seen)

  def sheet(self, name: str, lines: Sequence[editing.Line]) -> pathlib.Path:
    """Draws lines of edited latents to NAME.png."""
    file = self.results / f'{name}.png'
    figures.sheet(file, editing.decoded(lines, self.decode))
    return file

  def report(
    self,
    doc: str,
    table: Sequence[Mapping[str, object]],
    said: Sequence[str],
    pictures: Sequence[pathlib.Path],
    rows: Sequence[Mapping[str, str]],
  ):
    """Writes report.html and says the same here."""
    page = self.results / 'report.html'
    report.write(page, doc, table, said, pictures, rows, self.config)
    print(report.text(table), *said, f'see {page}', sep='\n')


def edit(function: Callable[..., Latent], *z: Images | Pair) -> Images | Pair:
  """An edit of latents [n, *grid, c], or of both members of a reversible solver's pairs alike."""
  return jax.tree.map(lambda *leaves: np.asarray(function(*map(jnp.asarray, leaves))), *z)


def share(flags: Bool[np.ndarray, ' n']) -> tuple[float, float]:
  """How many of the flags are set, and the standard error of that share."""
  p = float(np.mean(flags))
  return p, float(np.sqrt(p * (1 - p) / len(flags)))


def distance(a: Float[np.ndarray, 'n d'], b: Float[np.ndarray, 'n d']) -> float:
  """The root mean square distance between features."""
  return float(np.sqrt(((a - b) ** 2).sum(-1).mean()))


def variance(seen: Float[np.ndarray, 'groups variants d']) -> float:
  """E || phi - E phi ||^2 of the variants of a group, unbiased, the mean over groups (Fig. 4a)."""
  return float(seen.var(axis=1, ddof=1).sum(-1).mean())


def consistency(classes: Int[np.ndarray, 'groups variants']) -> float:
  """The share of a group's variants that are of its most frequent class, the mean over groups."""
  return float(np.mean([np.bincount(some).max() / len(some) for some in classes]))
