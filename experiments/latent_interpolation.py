"""Fig. 3: images interpolated to others in one band of their latents, the other bands unchanged.

  python -m gdm_jax.main --config=configs/digits_frequency.py
  python -m experiments.latent_interpolation --config=configs/digits_frequency.py \\
    --config.sampling.steps=32

Decodes --pairs pairs of latents (of the seeds 0, 1, ...) by edit.solver, and moves one band of the
first of each to that of the second, along the great circle (edit.spherical) at edit.weights.
`distance` is how far the features moved, relative to the distance between the two images, and
`changed` the share of images that the classifier assigns to another class than the first image's.
figure.png has --shown pairs, distance.png the distances. In the paper the coarsest band turns
gender, azimuth or the animal's class, [100, 499] the expression, and the rest hardly anything.
"""

import functools
import pathlib
from typing import Annotated

import numpy as np
import pandas as pd

from experiments.lib import command, report
from experiments.lib.subject import Subject, distance, edit, share
from gdm_jax import figures, latents
from gdm_jax.generation import editing
from gdm_jax.runtime.errors import ConfigError

VALUES = ('distance', 'changed', 'changed_error')


def run(config, workdir: pathlib.Path, *, pairs: Annotated[int, 2] = 100, shown: int = 1):
  """Interpolates each band of many pairs. Raises ConfigError if the workdir holds no model."""
  keys = ('pairs', 'spherical', 'band', 'weight')
  subject = Subject('latent_interpolation', config, workdir, keys, VALUES)
  if not subject.config.edit.weights:
    raise ConfigError('edit.weights is empty')
  z, other = subject.noise(0, pairs), subject.noise(pairs, pairs)
  rows = measure(subject, z, other)
  pictures = draw_images(subject, z, other, min(shown, pairs)), draw_distances(subject.folder, rows)
  subject.publish(__doc__, *summarise(rows), pictures, rows)


def measure(subject: Subject, z, other) -> pd.DataFrame:
  """The row of each band and weight."""
  c = subject.config.edit

  @functools.cache
  def ends():
    return [subject.features_of(subject.decode(latent)) for latent in (z, other)]

  def interpolate(pairs, spherical, band, weight):
    first, second = ends()
    mask = subject.masks[band]
    edited = edit(
      lambda p, q: latents.interpolate(subject.basis, p, q, weight, mask, spherical), z, other
    )
    features = subject.features_of(subject.decode(edited))
    values = {'distance': distance(features, first) / distance(second, first)}
    if subject.classified:
      changed = subject.classes(features) != subject.classes(first)
      values['changed'], values['changed_error'] = share(changed)
    return values

  common = {'pairs': len(z), 'spherical': c.spherical}
  cells = [{**common, 'band': band, 'weight': w} for band in subject.masks for w in c.weights]
  return subject.measure(interpolate, cells)


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  first = rows.iloc[0]
  cells = rows.set_index(['band', 'weight']).apply(format_cell, axis=1)
  path = 'great circle' if first['spherical'] == 'True' else 'straight line'
  return report.pivot(cells, 'band', rows['weight'].unique()), [
    f'{first["pairs"]} pairs of generated images, {path}; '
    f'distance of {first["features"]} features at each weight, that of the two images being 1'
    + ', and the share of another class than the first image' * bool(first['changed'])
    + '.'
  ]


def format_cell(row: pd.Series) -> str:
  """A cell of the table."""
  changed = f', {float(row["changed"]):.0%}' if row['changed'] else ''
  return f'{float(row["distance"]):.3f}{changed}'


def draw_images(subject: Subject, z, other, count: int) -> pathlib.Path:
  """figure.png: the first pairs."""
  c, pairs = subject.config.edit, len(z)
  both = np.stack([z[:count], other[:count]], 1).reshape(-1, *z.shape[1:])
  names = [f'seed {seed}' for i in range(count) for seed in (i, pairs + i)]
  lines = editing.interpolate(subject.basis, both, names, subject.masks, c.weights, c.spherical)
  return subject.sheet('figure', lines)


def draw_distances(folder: pathlib.Path, rows: pd.DataFrame) -> pathlib.Path:
  """distance.png: a line for each band."""
  figures.plot_lines(
    folder / 'distance.png',
    report.points_by(rows, 'band', ['weight', 'distance']),
    xlabel='weight of the second image',
    ylabel='distance of features, that of two = 1',
  )
  return folder / 'distance.png'


if __name__ == '__main__':
  command.start(run, __doc__)
