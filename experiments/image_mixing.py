"""Fig. 7: images with another's latents of one band, and how often that makes them another class.

  python -m gdm_jax.main --config=configs/digits_frequency.py --config.data.split=train[:80%]
  python -m experiments.image_mixing --config=configs/digits_frequency.py \\
    --config.evaluation.split=train[80%:] --config.sampling.steps=32

Across two sets in one model (Fig. 7b), here sandals, sneakers and boots with shirts and coats:

  python -m experiments.image_mixing --config=configs/fashion_frequency.py \\
    --config.evaluation.split=test --config.sampling.steps=32 --sets=5,7,9/0,2,4,6

Encodes --pairs pairs of real images of evaluation.split, of different classes if there are several,
gives the first of each the second's coefficients of one band, and decodes. `changed` is the share
of images that the classifier assigns to another class than the original's, `adopted` to that of the
second image. `distance` is how far the features moved, relative to the distance between the two
images, and `pixels` how far the pixels moved, in [-1, 1]. Exchanging nothing and everything check
the encoding. The figure has --shown pairs. In the paper the coarse band [0, 29] carries the
high-level attributes of faces, and [100, 499] their expression. With other evaluation.features than
the classifier's there are only the distances. For your own pictures use --mode=edit.
"""

import functools
import pathlib
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.lib import command
from experiments.lib.subject import Subject, data_name, distance, edit, share
from gdm_jax import latents
from gdm_jax.generation import editing
from gdm_jax.runtime.errors import ConfigError

VALUES = ('changed', 'changed_error', 'adopted', 'adopted_error', 'distance', 'pixels')


def run(
  config, workdir: pathlib.Path, *, pairs: Annotated[int, 2] = 500, shown: int = 3, sets: str = ''
):
  """Exchanges each band of many pairs. Raises ConfigError if the workdir holds no model."""
  subject = Subject('image_mixing', config, workdir, ('sets', 'pairs', 'band'), VALUES)
  originals, references = subject.choose_pairs(pairs, parse(sets))
  rows = measure(subject, originals, references, sets)
  picture = draw(subject, np.stack([originals, references], 1)[:shown].ravel())
  subject.publish(__doc__, *summarise(rows), [picture], rows)


def parse(sets: str) -> tuple[list[int], list[int]] | None:
  """The classes of both sets of a flag such as 5,7,9/0,2. Raises ConfigError."""
  if not sets:
    return None
  try:
    first, second = ([int(label) for label in half.split(',')] for half in sets.split('/'))
  except ValueError:
    raise ConfigError(f'--sets={sets}: must be classes of two sets, such as 5,7,9/0,2') from None
  return first, second


def measure(subject: Subject, originals, references, sets: str = '') -> pd.DataFrame:
  """The row of each band, and of nothing and everything exchanged."""
  nothing = jnp.zeros((*subject.basis.shape, 1), bool)
  bands = {'nothing': nothing, **subject.masks, 'everything': ~nothing}

  @functools.cache
  def encoded():
    """Images, latents and features, of the originals and of the references."""
    images = [subject.load(numbers)[0] for numbers in (originals, references)]
    return [(x, subject.encode(x), subject.features_of(x)) for x in images]

  def exchange(sets, pairs, band):
    (x, z, original), (_, other, reference) = encoded()
    mixed = subject.decode(
      edit(lambda p, q: latents.swap(subject.basis, p, q, bands[band])[0], z, other)
    )
    features = subject.features_of(mixed)
    values = {}
    if subject.classified:
      after, before, target = map(subject.classes, (features, original, reference))
      values['changed'], values['changed_error'] = share(after != before)
      values['adopted'], values['adopted_error'] = share(after == target)
    values['distance'] = distance(features, original) / distance(reference, original)
    values['pixels'] = float(np.sqrt(((mixed - x) ** 2).mean()))
    return values

  cells = [{'sets': sets, 'pairs': len(originals), 'band': band} for band in bands]
  return subject.measure(exchange, cells)


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  nothing, coarse, fine = (rows.iloc[i] for i in (0, 1, -2))
  findings = [
    f'{nothing["pairs"]} pairs of {data_name(rows)}; shares are given with their standard errors.'
  ]
  if nothing['changed']:
    findings.append(
      f'Exchanging {coarse["band"]} makes {float(coarse["changed"]):.1%} of the images another '
      f'class, exchanging {fine["band"]} {float(fine["changed"]):.1%}.'
    )
  findings.append(
    f'Exchanging nothing leaves a root mean square difference of {float(nothing["pixels"]):.2g} '
    'to the original pixels, in [-1, 1].'
  )
  return rows[['band', *VALUES]].rename(columns={'band': 'exchanged'}), findings


def draw(subject: Subject, numbers) -> pathlib.Path:
  """figure.png: real images two by two, with each other's bands."""
  z, names = subject.encode(subject.load(numbers)[0]), subject.captions(numbers)
  return subject.sheet('figure', editing.mix(subject.basis, z, names, subject.masks))


if __name__ == '__main__':
  command.start(run, __doc__)
