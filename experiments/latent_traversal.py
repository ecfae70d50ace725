"""Fig. 6 and 8: one element of the latents at a time, from -3 to 3, of generated and real images.

  python -m gdm_jax.main --config=configs/digits_frequency.py --config.data.split=train[:80%]
  python -m experiments.latent_traversal --config=configs/digits_frequency.py \\
    --config.evaluation.split=train[80%:] --config.sampling.steps=32

Sets the element of each of edit.ranks (of edit.channel) to each of edit.strengths, in --images
latents (of the seeds 0, 1, ...), decoded by edit.solver, and compares the images with those of the
same latents with the element at 0. `distance` is how far the features move, relative to the
distance between two of the images; `changed` the share of images whose class, to the classifier,
changes; `common` how much of the motion all images share: the length of the mean displacement
(corrected for its bias) over the root mean square, 1 if an element moves every image alike, 0 if
the images move independently. figure.png has --shown generated images (Fig. 6), real.png as many
real ones of evaluation.split (Fig. 8), distance.png the distances. The paper picks elements of the
lowest band that turn azimuth, hair or gender.
"""

import functools
import pathlib
from typing import Annotated

import numpy as np
import pandas as pd
from jaxtyping import Float

from experiments.lib import command, report
from experiments.lib.subject import Subject, data_name, distance, edit, share
from gdm_jax import figures, latents
from gdm_jax.config import blaming
from gdm_jax.generation import editing
from gdm_jax.runtime.errors import ConfigError

VALUES = ('distance', 'common', 'changed', 'changed_error')


def run(config, workdir: pathlib.Path, *, images: Annotated[int, 2] = 128, shown: int = 2):
  """Sets elements of many latents. Raises ConfigError for a rank or channel that does not exist."""
  for key in ('ranks', 'strengths'):
    if not config.edit[key]:
      raise ConfigError(f'edit.{key} is empty')
  keys = ('images', 'channel', 'rank', 'strength')
  subject = Subject('latent_traversal', config, workdir, keys, VALUES)
  subject.require_frequency_basis()
  z, c = subject.noise(0, images), subject.config.edit
  with blaming('edit.ranks, edit.channel', (c.ranks, c.channel)):
    for rank in c.ranks:
      latents.traverse(subject.basis, z[:1], rank, c.channel, np.zeros(1))
  rows = measure(subject, z)
  pictures = *draw_images(subject, z[:shown]), draw_distances(subject.folder, rows)
  subject.publish(__doc__, *summarise(rows), pictures, rows)


def measure(subject: Subject, z) -> pd.DataFrame:
  """The row of each rank and strength."""
  c = subject.config.edit

  @functools.cache
  def distance_of_two():
    features = subject.features_of(subject.decode(z))
    return distance(features, np.roll(features, 1, axis=0))

  @functools.cache
  def features_at(rank, strength):
    value = np.asarray([strength])
    edited = edit(lambda p: latents.traverse(subject.basis, p, rank, c.channel, value)[0], z)
    return subject.features_of(subject.decode(edited))

  def traverse(images, channel, rank, strength):
    middle, moved = features_at(rank, 0.0), features_at(rank, strength)
    values = {
      'distance': distance(moved, middle) / distance_of_two(),
      'common': common_share(moved - middle),
    }
    if subject.classified:
      changed = subject.classes(moved) != subject.classes(middle)
      values['changed'], values['changed_error'] = share(changed)
    return values

  common = {'images': len(z), 'channel': c.channel}
  cells = [{**common, 'rank': rank, 'strength': s} for rank in c.ranks for s in c.strengths]
  return subject.measure(traverse, cells)


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  first = rows.iloc[0]
  cells = rows.set_index(['rank', 'strength']).apply(format_cell, axis=1)
  return report.pivot(cells, 'rank', rows['strength'].unique()), [
    f'{first["images"]} generated images; at each value of the element, from 0, how far the '
    f'features ({first["features"]}) move / how much of that all images share'
    + ' / how many change their class.'
    * bool(first['changed']),
    f'real.png: {data_name(rows)}.',
  ]


def format_cell(row: pd.Series) -> str:
  """A cell of the table."""
  numbers = [f'{float(row[key]):.2f}' for key in ('distance', 'common')]
  changed = [f'{float(row["changed"]):.0%}'] if row['changed'] else []
  return ' / '.join([*numbers, *changed])


def draw_images(subject: Subject, z) -> list[pathlib.Path]:
  """figure.png, generated images, and real.png, as many real ones."""
  c, numbers = subject.config.edit, subject.choose_images(len(z))
  options = {'ranks': c.ranks, 'channel': c.channel, 'values': c.strengths}
  sheets = {
    'figure': (z, [f'seed {seed}' for seed in range(len(z))]),
    'real': (subject.encode(subject.load(numbers)[0]), subject.captions(numbers)),
  }
  return [
    subject.sheet(name, editing.traverse(subject.basis, *images, **options))
    for name, images in sheets.items()
  ]


def draw_distances(folder: pathlib.Path, rows: pd.DataFrame) -> pathlib.Path:
  """distance.png: a line for each rank."""
  points = report.points_by(rows, 'rank', ['strength', 'distance'])
  figures.plot_lines(
    folder / 'distance.png',
    {f'rank {rank}': line for rank, line in points.items()},
    xlabel='value of the element',
    ylabel='distance of features, of two images = 1',
  )
  return folder / 'distance.png'


def common_share(moves: Float[np.ndarray, 'n d']) -> float:
  """How much of the displacements is common: the length of their mean over their root mean square.

  The square of a mean of n contains 1/n of their variance, which is taken out.
  """
  n, square = len(moves), (moves**2).sum(-1).mean()
  if not square:
    return 0.0
  mean = (moves.mean(0) ** 2).sum()
  return float(np.sqrt(max(n * mean - square, 0) / (n - 1) / square))


if __name__ == '__main__':
  command.start(run, __doc__)
