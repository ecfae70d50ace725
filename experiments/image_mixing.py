"""Fig. 7: images with another's latents of one band, and how often that makes them another class.

  python -m gdm_jax.main --config=configs/digits_frequency.py --config.data.split=train[:80%]
  python -m experiments.image_mixing --config=configs/digits_frequency.py \\
    --config.evaluation.split=train[80%:] --config.sampling.steps=32

Encodes --pairs pairs of real images of evaluation.split, of different classes where there are any,
gives the first of each the second's coefficients of one band, decodes, and asks the classifier:
`changed` is the share of images that it takes for another class than the original, `adopted` for
that of the second. `distance` is how far the features moved, 1 being the distance between the two
images, and `pixels` how far the pixels, in [-1, 1], did. Exchanging nothing and everything check
the encoding. The figure shows --shown pairs. In the paper the coarse band [0, 29] carries the
high-level attributes of faces, and [100, 499] their expression. Other evaluation.features than the
classifier's give the distances alone. For pictures of one's own there is --mode=edit.
"""

import functools
import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from experiments.lib import command
from experiments.lib.command import check_counts
from experiments.lib.study import Row
from experiments.lib.subject import Subject, distance, edit, share
from gdm_jax import latents
from gdm_jax.generation import editing

VALUES = ('changed', 'changed_error', 'adopted', 'adopted_error', 'distance', 'pixels')


def run(config, workdir: pathlib.Path, *, pairs: int = 500, shown: int = 3):
  """Exchanges each band of many pairs. Raises ConfigError if the workdir holds no model."""
  check_counts(2, pairs=pairs)
  check_counts(1, shown=shown)
  subject = Subject('image_mixing', config, workdir, ('pairs', 'band'), VALUES)
  originals, references = subject.choose_pairs(pairs)
  rows = measure(subject, originals, references)

  few = np.stack([originals, references], 1)[:shown].ravel()
  x, names = subject.load(few)[0], subject.captions(few)
  lines = editing.mix(subject.basis, subject.encode(x), names, subject.masks)
  picture = subject.sheet('figure', lines)
  table, findings = summarise(rows, subject.about)
  subject.report(__doc__, table, findings, [picture], rows)


def measure(subject: Subject, originals, references) -> list[Row]:
  """The row of each band, and of nothing and everything exchanged."""

  @functools.cache
  def encoded():
    """Images, latents and features, of the originals and of the references."""
    images = [subject.load(numbers)[0] for numbers in (originals, references)]
    return [(x, subject.encode(x), subject.features_of(x)) for x in images]

  def exchange(mask):
    (x, z, original), (_, other, reference) = encoded()
    mixed = subject.decode(edit(lambda p, q: latents.swap(subject.basis, p, q, mask)[0], z, other))
    features = subject.features_of(mixed)
    values = {}
    if subject.classified:
      after, before, target = map(subject.classes, (features, original, reference))
      values['changed'], values['changed_error'] = share(after != before)
      values['adopted'], values['adopted_error'] = share(after == target)
    values['distance'] = distance(features, original) / distance(reference, original)
    values['pixels'] = float(np.sqrt(((mixed - x) ** 2).mean()))
    return values

  nothing = jnp.zeros((*subject.basis.shape, 1), bool)
  bands = {'nothing': nothing, **subject.masks, 'everything': ~nothing}
  return [
    subject.measure(functools.partial(exchange, mask), pairs=len(originals), band=name)
    for name, mask in bands.items()
  ]


def summarise(rows: Sequence[Row], about: str) -> tuple[list[dict], list[str]]:
  """The table and the findings; about: the real images."""
  table = [{'exchanged': row['band'], **{key: row[key] for key in VALUES}} for row in rows]
  findings = [f'{rows[0]["pairs"]} pairs of {about}; shares are given with their standard errors.']
  if rows[0]['changed']:
    coarse, fine = rows[1], rows[-2]
    findings.append(
      f'Exchanging {coarse["band"]} makes {float(coarse["changed"]):.1%} of the images another '
      f'class, exchanging {fine["band"]} {float(fine["changed"]):.1%}.'
    )
  findings.append(
    f'Exchanging nothing leaves a root mean square difference of {float(rows[0]["pixels"]):.2g} '
    'to the original pixels, in [-1, 1].'
  )
  return table, findings


if __name__ == '__main__':
  command.start(run, __doc__)
