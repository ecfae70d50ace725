"""Fig. 4: which latents carry the content: what varies as the lowest are fixed, what they rebuild.

  python -m gdm_jax.main --config=configs/digits_frequency.py --config.data.split=train[:80%]
  python -m experiments.band_semantics --config=configs/digits_frequency.py \\
    --config.evaluation.split=train[80%:] --config.sampling.steps=32

(a) Fixes the n lowest components of a latent, per channel, and draws the others anew: the
perceptual variance E || phi(x) - E phi(x) ||^2 of --variants images, the mean over --fixed latents,
phi the evaluation.features (the paper's are of VGG-19; vgg19 here are means of its relu5_4 over
positions); and `agreement`, how often two of the variants are of the same class. (b) Rebuilds
--reconstructed real images of evaluation.split from their n lowest latents, the others 0: how far
features and pixels are from the originals', and how often the class is the `same`. figure.png has
both, reconstruction.png --shown images of (b). In the paper 400 to 700 components of 4,096 fixed
give semantically consistent images, and [0, 500] of 65,536 rebuild a face. --counts are the n, by
default the powers of two and the bands' edges.
"""

import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.lib import command
from experiments.lib.subject import (
  Subject,
  agreement,
  check_counts,
  distance,
  edit,
  share,
  variance,
)
from gdm_jax import figures, latents
from gdm_jax.generation import editing
from gdm_jax.runtime.errors import ConfigError

VALUES = ('variance', 'agreement', 'distance', 'pixels', 'same', 'same_error')
COLUMNS = 9  # of reconstruction.png, about


def run(
  config,
  workdir: pathlib.Path,
  *,
  counts: str = '',
  fixed: int = 32,
  variants: int = 16,
  reconstructed: int = 256,
  shown: int = 4,
):
  """Measures, draws and reports. Raises ConfigError for wrong counts."""
  check_counts(2, fixed=fixed, variants=variants, reconstructed=reconstructed)
  check_counts(1, shown=shown)
  sizes = {'fixed': fixed, 'variants': variants, 'reconstructed': reconstructed}
  subject = Subject('band_semantics', config, workdir, (*sizes, 'count'), VALUES)
  subject.check_ranks()
  basis, chosen = subject.basis, parse(counts, subject)

  @functools.cache
  def encoded():
    x, _ = subject.real(subject.some(reconstructed))
    return x, subject.encode(x), subject.perceive(x)

  def measure(count):
    free = basis.ranks[..., None] >= count
    z = subject.noise(0, fixed).repeat(variants, 0)
    fresh = subject.noise(fixed, fixed * variants)
    varied = edit(lambda p, q: latents.resample(basis, p, q, free), z, fresh)
    seen = subject.perceive(subject.decode(varied))
    x, z, was = encoded()
    rebuilt = subject.decode(edit(lambda p: latents.keep(basis, p, count), z))
    found = subject.perceive(rebuilt)
    values = {
      'variance': variance(seen.reshape(fixed, variants, -1)),
      'distance': distance(found, was),
      'pixels': float(np.sqrt(((rebuilt - x) ** 2).mean())),
    }
    if subject.classified:
      values['agreement'] = agreement(subject.classes(seen).reshape(fixed, variants))
      values['same'], values['same_error'] = share(subject.classes(found) == subject.classes(was))
    return values

  rows = [subject.cell(functools.partial(measure, n), count=n, **sizes) for n in chosen]
  few = subject.some(shown)
  z = subject.encode(subject.real(few)[0])
  columns = sorted({*chosen[:: -(-len(chosen) // COLUMNS)], chosen[-1]})
  lines = editing.keep(basis, z, subject.names(few), columns)
  pictures = draw(subject, rows), subject.sheet('reconstruction', lines)
  first = float(rows[0]['variance'])
  table = [
    {
      'lowest components': row['count'],
      'relative variance': f'{float(row["variance"]) / first:.3f}',
      **{key: row[key] for key in VALUES},
    }
    for row in rows
  ]
  half = next(int(row['count']) for row in rows if float(row['variance']) <= first / 2)
  said = [
    f'Perceptual variance of {subject.features.name} features; {half} of {basis.ranks.size} '
    'components fixed, of those tried, are the fewest that halve it.',
    f'Rebuilt are {reconstructed} images of {subject.about}. Distances of features and of pixels '
    'are root mean squares.',
  ]
  subject.report(__doc__, table, said, pictures, rows)


def parse(text: str, subject: Subject) -> list[int]:
  """The counts of a flag, or the powers of two and the bands' edges; none and all besides."""
  size = subject.basis.ranks.size
  if text:
    found = [int(n) if n.strip().isdigit() else -1 for n in text.split(',')]
    if not all(0 <= n <= size for n in found):
      raise ConfigError(f'--counts={text}: numbers of 0 to {size}, with commas between them')
  else:
    powers = (2**i for i in range(size.bit_length()))
    edges = np.cumsum([int(mask.sum()) for mask in subject.masks.values()]).tolist()
    found = [*powers, *edges]
  return sorted({0, size, *found})


def draw(subject: Subject, rows: Sequence[dict[str, str]]) -> pathlib.Path:
  """figure.png: shares against the number of components."""
  counts = [int(row['count']) for row in rows]

  def line(key, unit=1.0):
    return [(n, float(row[key]) / unit) for n, row in zip(counts, rows, strict=True)]

  lines = {
    'fixed: perceptual variance, with none fixed 1': line('variance', float(rows[0]['variance']))
  }
  if subject.classified:
    lines |= {
      'fixed: two variants of the same class': line('agreement'),
      'rebuilt: in the class of the original': line('same'),
    }
  file = subject.results / 'figure.png'
  size = subject.basis.ranks.size
  figures.plot_lines(
    file,
    lines,
    ticks=counts if len(counts) < 10 else (),
    xscale='symlog',
    xlabel=f'lowest components fixed, or kept, of {size} per channel',
  )
  return file


if __name__ == '__main__':
  command.start(run, __doc__)
