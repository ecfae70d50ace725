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

import jax.numpy as jnp
import numpy as np

from experiments.lib import command
from experiments.lib.subject import Subject, check_counts, distance, edit, share
from gdm_jax import latents
from gdm_jax.generation import editing

VALUES = ('changed', 'changed_error', 'adopted', 'adopted_error', 'distance', 'pixels')


def run(config, workdir: pathlib.Path, *, pairs: int = 500, shown: int = 3):
  """Measures, draws and reports. Raises ConfigError where a workdir holds no model."""
  check_counts(2, pairs=pairs)
  check_counts(1, shown=shown)
  subject = Subject('image_mixing', config, workdir, ('pairs', 'band'), VALUES)
  originals, references = subject.pairs(pairs)

  @functools.cache
  def encoded():
    """Images, latents and features, of the originals and of the references."""
    images = [subject.real(numbers)[0] for numbers in (originals, references)]
    return [(x, subject.encode(x), subject.perceive(x)) for x in images]

  def measure(mask):
    (x, z, was), (_, other, theirs) = encoded()
    mixed = subject.decode(edit(lambda p, q: latents.swap(subject.basis, p, q, mask)[0], z, other))
    found = subject.perceive(mixed)
    values = {}
    if subject.classified:
      now, before, reference = map(subject.classes, (found, was, theirs))
      values['changed'], values['changed_error'] = share(now != before)
      values['adopted'], values['adopted_error'] = share(now == reference)
    values['distance'] = distance(found, was) / distance(theirs, was)
    values['pixels'] = float(np.sqrt(((mixed - x) ** 2).mean()))
    return values

  nothing = jnp.zeros((*subject.basis.shape, 1), bool)
  bands = {'nothing': nothing, **subject.masks, 'everything': ~nothing}
  rows = [
    subject.cell(functools.partial(measure, mask), pairs=pairs, band=name)
    for name, mask in bands.items()
  ]

  few = np.stack([originals, references], 1)[:shown].ravel()
  x, names = subject.real(few)[0], subject.names(few)
  lines = editing.mix(subject.basis, subject.encode(x), names, subject.masks)
  picture = subject.sheet('figure', lines)
  table = [{'exchanged': row['band'], **{key: row[key] for key in VALUES}} for row in rows]
  said = [f'{pairs} pairs of {subject.about}; shares are given with their standard errors.']
  if subject.classified:
    coarse, fine = rows[1], rows[-2]
    said.append(
      f'Exchanging {coarse["band"]} makes {float(coarse["changed"]):.1%} of the images another '
      f'class, exchanging {fine["band"]} {float(fine["changed"]):.1%}.'
    )
  said.append(
    f'Exchanging nothing leaves a root mean square difference of {float(rows[0]["pixels"]):.2g} '
    'to the original pixels, in [-1, 1].'
  )
  subject.report(__doc__, table, said, [picture], rows)


if __name__ == '__main__':
  command.start(run, __doc__)
