"""Fig. 9: variations of real images: the lowest bands of their latents kept, the rest redrawn.

  python -m gdm_jax.main --config=configs/digits_frequency.py --config.data.split=train[:80%]
  python -m experiments.image_variation --config=configs/digits_frequency.py \\
    --config.evaluation.split=train[80%:] --config.sampling.steps=32

Encodes --images real images of evaluation.split, keeps the first band, the first two and so on, and
decodes each with --variants new sets of the other latents (their noise has the seeds 0, 1, ...).
`variance` is the perceptual variance of an image's variants, the mean over images, `distance` how
far their features are from the image's, and `same` the share of variants that the classifier
assigns to the image's class. The figure has --shown images. In the paper the overall appearance
differs if [0, 100] is kept, and only fine detail if [0, 500] is.
"""

import functools
import pathlib
from typing import Annotated

import pandas as pd

from experiments.lib import command
from experiments.lib.subject import Subject, data_name, distance, edit, share, variance
from gdm_jax import latents
from gdm_jax.generation import editing
from gdm_jax.runtime.errors import ConfigError

VALUES = ('variance', 'distance', 'same', 'same_error')


def run(
  config,
  workdir: pathlib.Path,
  *,
  images: Annotated[int, 2] = 64,
  variants: Annotated[int, 2] = 8,
  shown: int = 2,
):
  """Keeps the lowest bands of real images. Raises ConfigError if the workdir holds no model."""
  subject = Subject('image_variation', config, workdir, ('images', 'variants', 'kept'), VALUES)
  masks = editing.lowest(subject.masks)
  if not masks:
    raise ConfigError('the strategy has one group: keeping it leaves nothing to vary')
  noise = subject.noise(0, images * variants)
  rows = measure(subject, masks, images, variants, noise)
  picture = draw(subject, masks, shown, noise[:variants])
  subject.publish(__doc__, *summarise(rows), [picture], rows)


def measure(subject: Subject, masks, images: int, variants: int, noise) -> pd.DataFrame:
  """The row of each mask that is kept."""

  @functools.cache
  def encoded():
    x, _ = subject.load(subject.choose_images(images))
    z = edit(lambda p: p.repeat(variants, 0), subject.encode(x))
    return z, subject.features_of(x).repeat(variants, 0)

  def vary(images, variants, kept):
    z, original = encoded()
    varied = edit(lambda p: latents.resample(subject.basis, p, noise, ~masks[kept]), z)
    features = subject.features_of(subject.decode(varied))
    values = {
      'variance': variance(features.reshape(images, variants, -1)),
      'distance': distance(features, original),
    }
    if subject.classified:
      same = subject.classes(features) == subject.classes(original)
      values['same'], values['same_error'] = share(same.reshape(images, variants))
    return values

  cells = [{'images': images, 'variants': variants, 'kept': name} for name in masks]
  return subject.measure(vary, cells)


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  first = rows.iloc[0]
  return rows[['kept', *VALUES]], [
    f'{first["images"]} images of {data_name(rows)}, {first["variants"]} variants each; perceptual '
    f'variance of {first["features"]} features.'
  ]


def draw(subject: Subject, masks, count: int, noise) -> pathlib.Path:
  """figure.png: variations of real images."""
  numbers = subject.choose_images(count)
  z, names = subject.encode(subject.load(numbers)[0]), subject.captions(numbers)
  return subject.sheet('figure', editing.vary(subject.basis, z, names, masks, noise))


if __name__ == '__main__':
  command.start(run, __doc__)
