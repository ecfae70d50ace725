"""Fig. 6 and 8: one element of the latents at a time, from -3 to 3, of generated and real images.

  python -m gdm_jax.main --config=configs/digits_frequency.py --config.data.split=train[:80%]
  python -m experiments.latent_traversal --config=configs/digits_frequency.py \\
    --config.evaluation.split=train[80%:] --config.sampling.steps=32

Sets the element of each of edit.ranks (of edit.channel) to each of edit.strengths, in --images
latents (of the seeds 0, 1, ...), decoded by edit.solver, and compares the images with those of the
same latents with the element at 0: `distance` is how far the features move, 1 being the distance
between two of the images; `changed` the share that the classifier takes for another class; `common`
how much of the motion all images share, the length of the mean displacement (the estimate is freed
of its bias) over the root mean square: 1 if an element moves every image alike, 0 if each goes its
own way. figure.png has --shown generated images (Fig. 6), real.png as many real ones of
evaluation.split (Fig. 8), distance.png all. The paper picks elements of the lowest band that turn
azimuth, hair or gender.
"""

import functools
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from experiments.lib import command
from experiments.lib.command import check_counts
from experiments.lib.study import Row, by
from experiments.lib.subject import Subject, distance, edit, share
from gdm_jax import figures, latents
from gdm_jax.config import blaming
from gdm_jax.generation import editing

VALUES = ('distance', 'common', 'changed', 'changed_error')


def run(config, workdir: pathlib.Path, *, images: int = 128, shown: int = 2):
  """Sets elements of many latents. Raises ConfigError for a rank or channel that does not exist."""
  check_counts(2, images=images)
  check_counts(1, shown=shown)
  keys = ('images', 'channel', 'rank', 'strength')
  subject = Subject('latent_traversal', config, workdir, keys, VALUES)
  subject.require_frequency_basis()
  basis, c, shown = subject.basis, subject.config.edit, min(shown, images)
  z = subject.noise(0, images)
  with blaming('edit.ranks, edit.channel', (c.ranks, c.channel)):
    for rank in c.ranks:
      latents.traverse(basis, z[:1], rank, c.channel, np.zeros(1))
  rows = measure(subject, z)

  few = subject.choose_images(shown)
  lines = functools.partial(
    editing.traverse, basis, ranks=c.ranks, channel=c.channel, values=c.strengths
  )
  generated = lines(z[:shown], [f'seed {seed}' for seed in range(shown)])
  real = lines(subject.encode(subject.load(few)[0]), subject.captions(few))
  plot = subject.results / 'distance.png'
  draw(plot, rows)
  pictures = subject.sheet('figure', generated), subject.sheet('real', real), plot
  table, findings = summarise(rows, subject.about)
  subject.report(__doc__, table, findings, pictures, rows)


def measure(subject: Subject, z) -> list[Row]:
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

  def traverse(rank, strength):
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
  return [
    subject.measure(functools.partial(traverse, rank, v), rank=rank, strength=v, **common)
    for rank in c.ranks
    for v in c.strengths
  ]


def summarise(rows: Sequence[Row], about: str) -> tuple[list[dict], list[str]]:
  """The table and the findings; about: the real images."""
  table = [
    {'rank': rank, **{row['strength']: format_cell(row) for row in line}}
    for rank, line in by(rows, 'rank').items()
  ]
  return table, [
    f'{rows[0]["images"]} generated images; at each value of the element, from 0, how far the '
    f'features ({rows[0]["features"]}) move / how much of that all images share'
    + ' / how many change their class.'
    * bool(rows[0]['changed']),
    f'real.png: {about}.',
  ]


def draw(file: pathlib.Path, rows: Sequence[Row]):
  """A line for each rank."""
  lines = {
    f'rank {rank}': [(float(row['strength']), float(row['distance'])) for row in line]
    for rank, line in by(rows, 'rank').items()
  }
  figures.plot_lines(
    file, lines, xlabel='value of the element', ylabel='distance of features, of two images = 1'
  )


def common_share(moves: Float[np.ndarray, 'n d']) -> float:
  """How much of the displacements is common: the length of their mean over their root mean square.

  The square of a mean of n contains 1/n of their variance, which is taken out.
  """
  n, square = len(moves), (moves**2).sum(-1).mean()
  if not square:
    return 0.0
  mean = (moves.mean(0) ** 2).sum()
  return float(np.sqrt(max(n * mean - square, 0) / (n - 1) / square))


def format_cell(row: dict[str, str]) -> str:
  """A cell of the table."""
  found = [f'{float(row[key]):.2f}' for key in ('distance', 'common')]
  return ' / '.join([*found, f'{float(row["changed"]):.0%}'] if row['changed'] else found)


if __name__ == '__main__':
  command.start(run, __doc__)
