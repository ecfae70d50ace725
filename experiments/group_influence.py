"""Fig. 1c: which groups of the data move when one group of the latent varies.

  python -m gdm_jax.main --config=configs/fashion.py
  python -m experiments.group_influence --config=configs/fashion.py --config.sampling.steps=32

Redraws the latent of one group --variants times for each of --images latents, decodes, and measures
how far the elements of every group move: a k x k matrix of root mean squares, each relative to that
of the group's elements when the whole latent is redrawn. By Proposition 3.3 a group that is
generated earlier than the varied one does not move at the optimum: what it does move says how far
the trained network is from that. Groups generated later follow the one that varies. The figure has
the matrix, and images with the varied group outlined, as in the paper.
"""

import functools
import pathlib

import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from experiments.lib import command
from experiments.lib.subject import Subject, edit
from gdm_jax import build, figures, latents
from gdm_jax.data.units import to_uint8

ALL = 'all'  # the whole latent


def run(config, workdir: pathlib.Path, *, images: int = 64, variants: int = 8, shown: int = 6):
  """Varies each group of many latents. Raises ConfigError if the workdir holds no model."""
  keys = 'images', 'variants', 'varied', 'group'
  subject = Subject('group_influence', config, workdir, keys, ('moved',), perceived=False)
  rows = measure(subject, images, variants)
  picture = draw(subject, rows, shown)
  config, system = subject.config, subject.model.system
  strategy = system.strategies[build.sampling_order(config, system.strategies)[0]]
  follow = not strategy.overlap and strategy.intervals is None
  subject.publish(__doc__, *summarise(rows, follow), [picture], rows)


def measure(subject: Subject, images: int, variants: int) -> pd.DataFrame:
  """The row of each group of the data, for each group of the latent, in the order of generation."""
  masks = ordered_masks(subject)
  everything = {**masks, ALL: jnp.ones_like(next(iter(masks.values())))}

  @functools.cache
  def decoded():
    z = subject.noise(0, images)
    return z, subject.decode(z)

  @functools.cache
  def squares(varied):
    z, x = decoded()
    changed = redrawn(subject, z, variants, everything[varied], first=images)
    moved = subject.basis.analyze(jnp.asarray(changed - x.repeat(variants, 0)))
    return np.asarray(moved, np.float64) ** 2

  def moved(images, variants, varied, group):
    of_group = np.broadcast_to(masks[group], squares(varied).shape[1:])
    return {'moved': float(np.sqrt(squares(varied)[:, of_group].mean()))}

  return subject.measure(
    moved,
    [
      {'images': images, 'variants': variants, 'varied': varied, 'group': group}
      for varied in everything
      for group in masks
    ],
  )


def ordered_masks(subject: Subject) -> dict:
  """The groups' elements by name, in the order of generation."""
  names = list(subject.masks)
  return {names[group]: subject.masks[names[group]] for group in subject.order}


def redrawn(subject: Subject, z: np.ndarray, variants: int, mask, first: int) -> np.ndarray:
  """Images of z with fresh noise in the mask, `variants` of each; its seeds are from `first` on."""
  noise = subject.noise(first, len(z) * variants)
  swapped = edit(
    lambda p, q: latents.resample(subject.basis, p, q, mask), z.repeat(variants, 0), noise
  )
  return subject.decode(swapped)


def matrix(rows: pd.DataFrame) -> pd.DataFrame:
  """How far each group (across) moves when one (down) varies, relative to all of the latent."""
  table = rows.assign(moved=rows['moved'].astype(float))
  table = table.pivot(index='varied', columns='group', values='moved')
  groups = list(rows['group'].unique())
  return table.loc[groups, groups] / table.loc[ALL, groups]


def summarise(rows: pd.DataFrame, follow: bool = True) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings; follow: whether a group begins when the one before has ended."""
  relative = matrix(rows)
  values, k = relative.to_numpy(), len(relative)
  table = relative.map('{:.3f}'.format).rename_axis(None, axis=1).reset_index()
  findings = [
    f'{rows["images"].iloc[0]} latents, {rows["variants"].iloc[0]} variants of each. Groups are in '
    'the order of generation; 1 is how far a group moves when the whole latent is redrawn.'
  ]
  if k > 1 and follow:
    earlier, later = values[np.tril_indices(k, -1)], values[np.triu_indices(k, 1)]
    findings.append(
      f'Groups generated earlier than the varied one move by {np.sqrt((earlier**2).mean()):.3f} '
      f'(root mean square; {earlier.max():.3f} at most): 0 by Proposition 3.3, at the optimum. The '
      f'varied group itself moves by {np.sqrt((values.diagonal() ** 2).mean()):.3f}, groups '
      f'generated later by {np.sqrt((later**2).mean()):.3f}.'
    )
  return table.rename(columns={'varied': 'varied / moves'}), findings


def draw(subject: Subject, rows: pd.DataFrame, shown: int) -> pathlib.Path:
  """The matrix; and one image, each of its groups varied in turn and outlined."""
  masks, relative = ordered_masks(subject), matrix(rows)
  size = 1.1 * (shown + 1) + 4, 1.1 * len(masks) + 0.6
  figure = plt.figure(figsize=size, dpi=120, layout='constrained')
  left, right = figure.subfigures(1, 2, width_ratios=(4, 1.1 * (shown + 1)))
  axes = left.subplots()
  axes.imshow(relative, cmap='viridis', vmin=0)
  for (i, j), value in np.ndenumerate(relative.to_numpy()):
    color = 'black' if value > 0.6 else 'white'  # readable on viridis
    axes.text(j, i, f'{value:.2f}', ha='center', va='center', color=color, fontsize=7)
  axes.set_xticks(range(len(masks)), masks, fontsize=7)
  axes.set_yticks(range(len(masks)), masks, fontsize=7)
  axes.set(xlabel='moves', ylabel='varied')

  z = subject.noise(0, 1)
  panels = right.subplots(len(masks), shown + 1, squeeze=False)
  for line, (name, mask) in zip(panels, masks.items(), strict=True):
    images = [subject.decode(z)[0], *redrawn(subject, z, shown, mask, first=1)]
    outline = np.broadcast_to(mask, (*mask.shape[:-1], 1))[..., 0].astype(float)
    for axis, image in zip(line, images, strict=True):
      axis.imshow(np.broadcast_to(to_uint8(image), (*image.shape[:2], 3)))
      if subject.basis.is_pixel:
        axis.contour(outline, [0.5], colors='red', linewidths=1)
      axis.set_axis_off()
    line[0].set_title(name, fontsize=7)
  file = subject.folder / 'figure.png'
  figures.finish(figure, file)
  return file


if __name__ == '__main__':
  command.start(run, __doc__)
