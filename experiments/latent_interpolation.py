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

import numpy as np

from experiments.lib import command
from experiments.lib.subject import Subject, check_counts, distance, edit, share
from gdm_jax import figures, latents
from gdm_jax.generation import editing
from gdm_jax.runtime.errors import ConfigError

VALUES = ('distance', 'changed', 'changed_error')


def run(config, workdir: pathlib.Path, *, pairs: int = 100, shown: int = 1):
  """Measures, draws and reports. Raises ConfigError where a workdir holds no model."""
  check_counts(1, pairs=pairs, shown=shown)
  shown = min(shown, pairs)
  keys = ('pairs', 'spherical', 'band', 'weight')
  subject = Subject('latent_interpolation', config, workdir, keys, VALUES)
  basis, c = subject.basis, subject.config.edit
  if not c.weights:
    raise ConfigError('edit.weights is empty')
  z, other = subject.noise(0, pairs), subject.noise(pairs, pairs)

  @functools.cache
  def ends():
    return [subject.perceive(subject.decode(some)) for some in (z, other)]

  def measure(mask, weight):
    was, theirs = ends()
    moved = edit(lambda p, q: latents.interpolate(basis, p, q, weight, mask, c.spherical), z, other)
    found = subject.perceive(subject.decode(moved))
    values = {
      'distance': distance(found, was) / distance(theirs, was),
    }
    if subject.classified:
      changed = share(subject.classes(found) != subject.classes(was))
      values['changed'], values['changed_error'] = changed
    return values

  common = {'pairs': pairs, 'spherical': c.spherical}
  rows = {
    name: [
      subject.cell(functools.partial(measure, mask, w), band=name, weight=w, **common)
      for w in c.weights
    ]
    for name, mask in subject.masks.items()
  }
  plot = subject.results / 'distance.png'
  lines = {
    name: [(float(row['weight']), float(row['distance'])) for row in line]
    for name, line in rows.items()
  }
  figures.plot_lines(
    plot, lines, xlabel='weight of the second image', ylabel='distance of features, that of two = 1'
  )
  few = np.stack([z[:shown], other[:shown]], 1).reshape(-1, *z.shape[1:])
  names = [f'seed {seed}' for i in range(shown) for seed in (i, pairs + i)]
  ways = editing.interpolate(basis, few, names, subject.masks, c.weights, c.spherical)
  pictures = subject.sheet('figure', ways), plot
  table = [
    {'band': name, **{f'{row["weight"]}': told(row) for row in line}} for name, line in rows.items()
  ]
  said = [
    f'{pairs} pairs of generated images, {"great circle" if c.spherical else "straight line"}; '
    f'distance of {subject.features.name} features at each weight, that of the two images being 1'
    + ', and the share of another class than the first image' * subject.classified
    + '.'
  ]
  every = [row for line in rows.values() for row in line]
  subject.report(__doc__, table, said, pictures, every)


def told(row: dict[str, str]) -> str:
  """A cell of the table."""
  changed = f', {float(row["changed"]):.0%}' if row['changed'] else ''
  return f'{float(row["distance"]):.3f}{changed}'


if __name__ == '__main__':
  command.start(run, __doc__)
