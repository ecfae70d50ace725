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

import numpy as np
from jaxtyping import Float

from experiments.lib import command
from experiments.lib.subject import Subject, check_counts, distance, edit, share
from gdm_jax import figures, latents
from gdm_jax.config import blaming
from gdm_jax.generation import editing

VALUES = ('distance', 'common', 'changed', 'changed_error')


def run(config, workdir: pathlib.Path, *, images: int = 128, shown: int = 2):
  """Measures, draws and reports. Raises ConfigError for a rank or channel that is not there."""
  check_counts(2, images=images)
  check_counts(1, shown=shown)
  shown = min(shown, images)
  keys = ('images', 'channel', 'rank', 'strength')
  subject = Subject('latent_traversal', config, workdir, keys, VALUES)
  subject.check_ranks()
  basis, c = subject.basis, subject.config.edit
  z = subject.noise(0, images)
  with blaming('edit.ranks, edit.channel', (c.ranks, c.channel)):
    for rank in c.ranks:
      latents.traverse(basis, z[:1], rank, c.channel, np.zeros(1))

  @functools.cache
  def apart():
    seen = subject.perceive(subject.decode(z))
    return distance(seen, np.roll(seen, 1, axis=0))

  @functools.cache
  def moved(rank, strength):
    at = np.asarray([strength])
    edited = edit(lambda p: latents.traverse(basis, p, rank, c.channel, at)[0], z)
    return subject.perceive(subject.decode(edited))

  def measure(rank, strength):
    was, found = moved(rank, 0.0), moved(rank, strength)
    values = {
      'distance': distance(found, was) / apart(),
      'common': common_share(found - was),
    }
    if subject.classified:
      changed = share(subject.classes(found) != subject.classes(was))
      values['changed'], values['changed_error'] = changed
    return values

  common = {'images': images, 'channel': c.channel}
  rows = {
    rank: [
      subject.cell(functools.partial(measure, rank, v), rank=rank, strength=v, **common)
      for v in c.strengths
    ]
    for rank in c.ranks
  }
  plot = subject.results / 'distance.png'
  lines = {
    f'rank {rank}': [(float(row['strength']), float(row['distance'])) for row in line]
    for rank, line in rows.items()
  }
  figures.plot_lines(
    plot, lines, xlabel='value of the element', ylabel='distance of features, of two images = 1'
  )
  ways = functools.partial(
    editing.traverse, basis, ranks=c.ranks, channel=c.channel, values=c.strengths
  )
  few = subject.some(shown)
  generated = ways(z[:shown], [f'seed {seed}' for seed in range(shown)])
  real = ways(subject.encode(subject.real(few)[0]), subject.names(few))
  pictures = subject.sheet('figure', generated), subject.sheet('real', real), plot
  table = [
    {'rank': rank, **{row['strength']: told(row) for row in line}} for rank, line in rows.items()
  ]
  said = [
    f'{images} generated images; at each value of the element, from 0, how far the features '
    f'({subject.features.name}) move / how much of that all images share'
    + ' / how many change their class.'
    * subject.classified,
    f'real.png: {subject.about}.',
  ]
  subject.report(__doc__, table, said, pictures, [row for line in rows.values() for row in line])


def common_share(moves: Float[np.ndarray, 'n d']) -> float:
  """How much of the displacements is common: the length of their mean over their root mean square.

  The square of a mean of n contains 1/n of their variance, which is taken out.
  """
  n, square = len(moves), (moves**2).sum(-1).mean()
  if not square:
    return 0.0
  mean = (moves.mean(0) ** 2).sum()
  return float(np.sqrt(max(n * mean - square, 0) / (n - 1) / square))


def told(row: dict[str, str]) -> str:
  """A cell of the table."""
  found = [f'{float(row[key]):.2f}' for key in ('distance', 'common')]
  return ' / '.join([*found, f'{float(row["changed"]):.0%}'] if row['changed'] else found)


if __name__ == '__main__':
  command.start(run, __doc__)
