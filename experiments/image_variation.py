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

from experiments.lib import command
from experiments.lib.subject import Subject, check_counts, distance, edit, share, variance
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
  """Measures, draws and reports. Raises ConfigError where a workdir holds no model."""
  check_counts(2, images=images, variants=variants)
  check_counts(1, shown=shown)
  sizes = {'images': images, 'variants': variants}
  subject = Subject('image_variation', config, workdir, (*sizes, 'kept'), VALUES)
  basis, kept = subject.basis, editing.lowest(subject.masks)
  if not kept:
    raise ConfigError('the strategy has one group: there is nothing to keep beside the rest')
  fresh = subject.noise(0, images * variants)

  @functools.cache
  def encoded():
    x, _ = subject.real(subject.some(images))
    z = edit(lambda p: p.repeat(variants, 0), subject.encode(x))
    return z, subject.perceive(x).repeat(variants, 0)

  def measure(mask):
    z, was = encoded()
    varied = edit(lambda p: latents.resample(basis, p, fresh, ~mask), z)
    found = subject.perceive(subject.decode(varied))
    values = {
      'variance': variance(found.reshape(images, variants, -1)),
      'distance': distance(found, was),
    }
    if subject.classified:
      values['same'], values['same_error'] = share(
        (subject.classes(found) == subject.classes(was)).reshape(images, variants)
      )
    return values

  rows = [
    subject.cell(functools.partial(measure, mask), kept=name, **sizes)
    for name, mask in kept.items()
  ]
  few = subject.some(shown)
  z = subject.encode(subject.real(few)[0])
  lines = editing.vary(basis, z, subject.names(few), kept, fresh[:variants])
  picture = subject.sheet('figure', lines)
  table = [{'kept': row['kept'], **{key: row[key] for key in VALUES}} for row in rows]
  said = [
    f'{images} images of {subject.about}, {variants} variants each; perceptual variance of '
    f'{subject.features.name} features.'
  ]
  subject.report(__doc__, table, said, [picture], rows)


if __name__ == '__main__':
  command.start(run, __doc__)
