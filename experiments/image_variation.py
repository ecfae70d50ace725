"""Fig. 9: variations of real images: the lowest bands of their latents kept, the rest drawn anew.

  python -m gdm_jax.main --config=configs/digits_frequency.py --config.data.split=train[:80%]
  python -m experiments.image_variation --config=configs/digits_frequency.py \\
    --config.evaluation.split=train[80%:] --config.sampling.steps=32

Encodes --images real images of evaluation.split, keeps the first band, the first two and so on, and
decodes each with --variants new sets of the other latents (their noise has the seeds 0, 1, ...):
`variance` is the perceptual variance of an image's variants, the mean over images, `distance` how
far their features are from the image's, and `same` the share that the classifier takes for the
image's class. The figure shows --shown of them. In the paper, with [0, 100] kept the overall
appearance differs, with [0, 500] fine detail.
"""

import functools
import pathlib
from collections.abc import Sequence

from experiments.lib import command
from experiments.lib.command import check_counts
from experiments.lib.study import Row
from experiments.lib.subject import Subject, distance, edit, share, variance
from gdm_jax import latents
from gdm_jax.generation import editing
from gdm_jax.runtime.errors import ConfigError

VALUES = ('variance', 'distance', 'same', 'same_error')


def run(
  config,
  workdir: pathlib.Path,
  *,
  images: int = 64,
  variants: int = 8,
  shown: int = 2,
):
  """Keeps the lowest bands of real images. Raises ConfigError if the workdir holds no model."""
  check_counts(2, images=images, variants=variants)
  check_counts(1, shown=shown)
  subject = Subject('image_variation', config, workdir, ('images', 'variants', 'kept'), VALUES)
  masks = editing.lowest(subject.masks)
  if not masks:
    raise ConfigError('the strategy has one group: there is nothing to keep beside the rest')
  noise = subject.noise(0, images * variants)
  rows = measure(subject, masks, images, variants, noise)

  few = subject.choose_images(shown)
  z = subject.encode(subject.load(few)[0])
  lines = editing.vary(subject.basis, z, subject.captions(few), masks, noise[:variants])
  picture = subject.sheet('figure', lines)
  table, findings = summarise(rows, subject.about)
  subject.report(__doc__, table, findings, [picture], rows)


def measure(subject: Subject, masks, images: int, variants: int, noise) -> list[Row]:
  """The row of each mask that is kept."""

  @functools.cache
  def encoded():
    x, _ = subject.load(subject.choose_images(images))
    z = edit(lambda p: p.repeat(variants, 0), subject.encode(x))
    return z, subject.features_of(x).repeat(variants, 0)

  def vary(mask):
    z, original = encoded()
    varied = edit(lambda p: latents.resample(subject.basis, p, noise, ~mask), z)
    features = subject.features_of(subject.decode(varied))
    values = {
      'variance': variance(features.reshape(images, variants, -1)),
      'distance': distance(features, original),
    }
    if subject.classified:
      same = subject.classes(features) == subject.classes(original)
      values['same'], values['same_error'] = share(same.reshape(images, variants))
    return values

  return [
    subject.measure(functools.partial(vary, mask), kept=name, images=images, variants=variants)
    for name, mask in masks.items()
  ]


def summarise(rows: Sequence[Row], about: str) -> tuple[list[dict], list[str]]:
  """The table and the findings; about: the real images."""
  table = [{'kept': row['kept'], **{key: row[key] for key in VALUES}} for row in rows]
  return table, [
    f'{rows[0]["images"]} images of {about}, {rows[0]["variants"]} variants each; perceptual '
    f'variance of {rows[0]["features"]} features.'
  ]


if __name__ == '__main__':
  command.start(run, __doc__)
