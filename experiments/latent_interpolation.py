"""Fig. 3: images on their way to others in one band of their latents, the other bands as they are.

  python -m gdm_jax.main --config=configs/digits_frequency.py
  python -m experiments.latent_interpolation --config=configs/digits_frequency.py \\
    --config.sampling.steps=32

Decodes --pairs pairs of latents (of the seeds 0, 1, ...) by edit.solver, and moves one band of the
first of each to that of the second, along the great circle (edit.spherical) at edit.weights.
`distance` is how far the features have moved, 1 being the distance between the two images, and
`changed` the share of images that the classifier takes for another class than the first. figure.png
shows --shown pairs, distance.png all of them. In the paper the coarsest band turns gender, azimuth
or the animal's class, [100, 499] the expression, and the rest changes hardly anything.
"""

import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.lib import command
from experiments.lib.command import check_counts
from experiments.lib.study import Row, by
from experiments.lib.subject import Subject, distance, edit, share
from gdm_jax import figures, latents
from gdm_jax.generation import editing
from gdm_jax.runtime.errors import ConfigError

VALUES = ('distance', 'changed', 'changed_error')


def run(config, workdir: pathlib.Path, *, pairs: int = 100, shown: int = 1):
  """Interpolates each band of many pairs. Raises ConfigError if the workdir holds no model."""
  check_counts(1, pairs=pairs, shown=shown)
  keys = ('pairs', 'spherical', 'band', 'weight')
  subject = Subject('latent_interpolation', config, workdir, keys, VALUES)
  basis, c, shown = subject.basis, subject.config.edit, min(shown, pairs)
  if not c.weights:
    raise ConfigError('edit.weights is empty')
  z, other = subject.noise(0, pairs), subject.noise(pairs, pairs)
  rows = measure(subject, z, other)

  few = np.stack([z[:shown], other[:shown]], 1).reshape(-1, *z.shape[1:])
  names = [f'seed {seed}' for i in range(shown) for seed in (i, pairs + i)]
  lines = editing.interpolate(basis, few, names, subject.masks, c.weights, c.spherical)
  plot = subject.results / 'distance.png'
  draw(plot, rows)
  table, findings = summarise(rows)
  subject.report(__doc__, table, findings, (subject.sheet('figure', lines), plot), rows)


def measure(subject: Subject, z, other) -> list[Row]:
  """The row of each band and weight."""
  c = subject.config.edit

  @functools.cache
  def ends():
    return [subject.features_of(subject.decode(latent)) for latent in (z, other)]

  def interpolate(mask, weight):
    first, second = ends()
    edited = edit(
      lambda p, q: latents.interpolate(subject.basis, p, q, weight, mask, c.spherical), z, other
    )
    features = subject.features_of(subject.decode(edited))
    values = {'distance': distance(features, first) / distance(second, first)}
    if subject.classified:
      changed = subject.classes(features) != subject.classes(first)
      values['changed'], values['changed_error'] = share(changed)
    return values

  common = {'pairs': len(z), 'spherical': c.spherical}
  return [
    subject.measure(functools.partial(interpolate, mask, w), band=name, weight=w, **common)
    for name, mask in subject.masks.items()
    for w in c.weights
  ]


def summarise(rows: Sequence[Row]) -> tuple[list[dict], list[str]]:
  """The table and the findings."""
  table = [
    {'band': name, **{row['weight']: format_cell(row) for row in line}}
    for name, line in by(rows, 'band').items()
  ]
  path = 'great circle' if rows[0]['spherical'] == 'True' else 'straight line'
  return table, [
    f'{rows[0]["pairs"]} pairs of generated images, {path}; '
    f'distance of {rows[0]["features"]} features at each weight, that of the two images being 1'
    + ', and the share of another class than the first image' * bool(rows[0]['changed'])
    + '.'
  ]


def draw(file: pathlib.Path, rows: Sequence[Row]):
  """A line for each band."""
  lines = {
    name: [(float(row['weight']), float(row['distance'])) for row in line]
    for name, line in by(rows, 'band').items()
  }
  figures.plot_lines(
    file, lines, xlabel='weight of the second image', ylabel='distance of features, that of two = 1'
  )


def format_cell(row: dict[str, str]) -> str:
  """A cell of the table."""
  changed = f', {float(row["changed"]):.0%}' if row['changed'] else ''
  return f'{float(row["distance"]):.3f}{changed}'


if __name__ == '__main__':
  command.start(run, __doc__)
