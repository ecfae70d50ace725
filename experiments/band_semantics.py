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
from experiments.lib.command import check_counts
from experiments.lib.study import Row
from experiments.lib.subject import Subject, agreement, distance, edit, share, variance
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
  """Fixes, and rebuilds from, the lowest components. Raises ConfigError for wrong counts."""
  check_counts(2, fixed=fixed, variants=variants, reconstructed=reconstructed)
  check_counts(1, shown=shown)
  sizes = {'fixed': fixed, 'variants': variants, 'reconstructed': reconstructed}
  subject = Subject('band_semantics', config, workdir, (*sizes, 'count'), VALUES)
  subject.require_frequency_basis()
  numbers = parse(counts, subject)
  rows = measure(subject, numbers, **sizes)

  few = subject.choose_images(shown)
  z = subject.encode(subject.load(few)[0])
  columns = sorted({*numbers[:: -(-len(numbers) // COLUMNS)], numbers[-1]})
  lines = editing.keep(subject.basis, z, subject.captions(few), columns)
  pictures = draw(subject, rows), subject.sheet('reconstruction', lines)
  table, findings = summarise(rows, subject.about, subject.basis.ranks.size)
  subject.report(__doc__, table, findings, pictures, rows)


def measure(
  subject: Subject, counts: Sequence[int], fixed: int, variants: int, reconstructed: int
) -> list[Row]:
  """The row of each number of components."""
  basis = subject.basis

  @functools.cache
  def encoded():
    x, _ = subject.load(subject.choose_images(reconstructed))
    return x, subject.encode(x), subject.features_of(x)

  def components(count):
    # (a) The lowest are fixed, the others redrawn.
    free = basis.ranks[..., None] >= count
    z = subject.noise(0, fixed).repeat(variants, 0)
    noise = subject.noise(fixed, fixed * variants)
    varied = edit(lambda p, q: latents.resample(basis, p, q, free), z, noise)
    varied = subject.features_of(subject.decode(varied))
    # (b) Real images are rebuilt from the lowest.
    x, z, original = encoded()
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

  sizes = {'fixed': fixed, 'variants': variants, 'reconstructed': reconstructed}
  return [subject.measure(functools.partial(components, n), count=n, **sizes) for n in counts]


def summarise(rows: Sequence[Row], about: str, size: int) -> tuple[list[dict], list[str]]:
  """The table and the findings; about: the real images; size: the number of components."""
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
  return table, [
    f'Perceptual variance of {rows[0]["features"]} features; {half} of {size} '
    'components fixed, of those tried, are the fewest that halve it.',
    f'Rebuilt are {rows[0]["reconstructed"]} images of {about}. Distances of features and of '
    'pixels are root mean squares.',
  ]


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
