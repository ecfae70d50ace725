"""Fig. 4: which latents carry the content: what varies if the lowest are fixed, what they rebuild.

  python -m gdm_jax.main --config=configs/digits_frequency.py --config.data.split=train[:80%]
  python -m experiments.band_semantics --config=configs/digits_frequency.py \\
    --config.evaluation.split=train[80%:] --config.sampling.steps=32

(a) Fixes the n lowest components of a latent, per channel, and redraws the others: the perceptual
variance E || phi(x) - E phi(x) ||^2 of --variants images, the mean over --fixed latents, phi the
evaluation.features (the paper's are of VGG-19; vgg19 here are means of its relu5_4 over positions);
and `agreement`, how often two of the variants are of the same class. (b) Rebuilds --reconstructed
real images of evaluation.split from their n lowest latents, the others 0: how far features and
pixels are from the originals', and how often the class is the `same`. figure.png has both,
reconstruction.png --shown images of (b). In the paper fixing 400 to 700 components of 4,096 gives
semantically consistent images, and [0, 500] of 65,536 rebuild a face. --counts are the n, by
default the powers of two and the bands' edges.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import pandas as pd

from experiments.lib import command
from experiments.lib.subject import Subject, agreement, data_name, distance, edit, share, variance
from gdm_jax import figures, latents
from gdm_jax.generation import editing
from gdm_jax.runtime.errors import ConfigError

VALUES = ('variance', 'agreement', 'distance', 'pixels', 'same', 'same_error')
COLUMNS = 9  # of reconstruction.png, roughly


def run(
  config,
  workdir: pathlib.Path,
  *,
  counts: str = '',
  fixed: Annotated[int, 2] = 32,
  variants: Annotated[int, 2] = 16,
  reconstructed: Annotated[int, 2] = 256,
  shown: int = 4,
):
  """Fixes, and rebuilds from, the lowest components. Raises ConfigError for wrong counts."""
  sizes = {'fixed': fixed, 'variants': variants, 'reconstructed': reconstructed}
  subject = Subject('band_semantics', config, workdir, (*sizes, 'count'), VALUES)
  subject.require_frequency_basis()
  numbers = parse(counts, subject)
  rows = measure(subject, [{**sizes, 'count': n} for n in numbers])
  pictures = draw(subject.folder, rows), draw_rebuilt(subject, shown, numbers)
  subject.publish(__doc__, *summarise(rows), pictures, rows)


def measure(subject: Subject, cells: Sequence[dict[str, int]]) -> pd.DataFrame:
  """The row of each number of components."""
  basis = subject.basis

  @functools.cache
  def encoded(reconstructed):
    x, _ = subject.load(subject.choose_images(reconstructed))
    return x, subject.encode(x), subject.features_of(x)

  def components(fixed, variants, reconstructed, count):
    # (a) The lowest are fixed, the others redrawn.
    free = basis.ranks[..., None] >= count
    z = subject.noise(0, fixed).repeat(variants, 0)
    noise = subject.noise(fixed, fixed * variants)
    varied = edit(lambda p, q: latents.resample(basis, p, q, free), z, noise)
    varied = subject.features_of(subject.decode(varied))
    # (b) Real images are rebuilt from the lowest.
    x, z, original = encoded(reconstructed)
    rebuilt = subject.decode(edit(lambda p: latents.keep(basis, p, count), z))
    features = subject.features_of(rebuilt)
    values = {
      'variance': variance(varied.reshape(fixed, variants, -1)),
      'distance': distance(features, original),
      'pixels': float(np.sqrt(((rebuilt - x) ** 2).mean())),
    }
    if subject.classified:
      values['agreement'] = agreement(subject.classes(varied).reshape(fixed, variants))
      same = subject.classes(features) == subject.classes(original)
      values['same'], values['same_error'] = share(same)
    return values

  return subject.measure(components, cells)


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  first, counts = rows.iloc[0], rows['count'].astype(int)
  relative = relative_variance(rows)
  table = rows[['count', *VALUES]].rename(columns={'count': 'lowest components'})
  table.insert(1, 'relative variance', relative.map('{:.3f}'.format))
  half = counts[relative <= 1 / 2].iloc[0]
  return table, [
    f'Perceptual variance of {first["features"]} features; {half} of {counts.max()} '
    'components fixed, of those tried, are the fewest that halve it.',
    f'Rebuilt are {first["reconstructed"]} images of {data_name(rows)}. Distances of features and '
    'of pixels are root mean squares.',
  ]


def relative_variance(rows: pd.DataFrame) -> pd.Series:
  """The perceptual variance relative to that with nothing fixed, the first row's."""
  values = rows['variance'].astype(float)
  return values / values.iloc[0]


def parse(text: str, subject: Subject) -> list[int]:
  """Parses --counts; default: powers of two and band edges. 0 and all are always included."""
  size = subject.basis.ranks.size
  if text:
    counts = [int(n) if n.strip().isdigit() else -1 for n in text.split(',')]
    if not all(0 <= n <= size for n in counts):
      raise ConfigError(f'--counts={text}: numbers of 0 to {size}, with commas between them')
  else:
    powers = (2**i for i in range(size.bit_length()))
    edges = np.cumsum([int(mask.sum()) for mask in subject.masks.values()]).tolist()
    counts = [*powers, *edges]
  return sorted({0, size, *counts})


def draw(folder: pathlib.Path, rows: pd.DataFrame) -> pathlib.Path:
  """figure.png: shares against the number of components."""
  counts = rows['count'].astype(int).tolist()
  lines = {'fixed: perceptual variance, with none fixed 1': relative_variance(rows)}
  if rows['same'].iloc[0]:
    lines |= {
      'fixed: two variants of the same class': rows['agreement'].astype(float),
      'rebuilt: in the class of the original': rows['same'].astype(float),
    }
  figures.plot_lines(
    folder / 'figure.png',
    {name: list(zip(counts, values, strict=True)) for name, values in lines.items()},
    ticks=counts if len(counts) < 10 else (),
    xscale='symlog',
    xlabel=f'lowest components fixed, or kept, of {max(counts)} per channel',
  )
  return folder / 'figure.png'


def draw_rebuilt(subject: Subject, count: int, numbers: Sequence[int]) -> pathlib.Path:
  """reconstruction.png: real images from some of the numbers of components."""
  images = subject.choose_images(count)
  z, names = subject.encode(subject.load(images)[0]), subject.captions(images)
  columns = sorted({*numbers[:: -(-len(numbers) // COLUMNS)], numbers[-1]})
  return subject.sheet('reconstruction', editing.keep(subject.basis, z, names, columns))


if __name__ == '__main__':
  command.start(run, __doc__)
