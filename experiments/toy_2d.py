"""Fig. 1a: a 2-D Gaussian mixture, one coordinate after the other, and its exact likelihood.

  python -m experiments.toy_2d [--workdir=runs/toy_2d_experiment]

Trains one MLP on two strategies (configs/toy_2d_strategies.py): all at once, k = 1, and coordinate
by coordinate, k = 2, in both orders. Draws the paths from noise to data (figure.png), the points
during generation (trajectories.gif), and the model's density, by the exact trace, next to the true
one (density.png); prints its integral over the plane and its mean logarithm on held-out points
(report.json). About two minutes on two cores, 72 s of them training. An interrupted run resumes,
and a trained workdir is not trained again. --config.KEY=VALUE goes to the training.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import tqdm
from jax.tree_util import Partial
from jaxtyping import Array, Float
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from ml_collections import ConfigDict

from gdm_jax import build, figures, likelihood, main, sampling, schedule
from gdm_jax.data.arrays import Mixture
from gdm_jax.process import Process
from gdm_jax.runtime import sharding
from gdm_jax.runtime.batching import padded_batches
from gdm_jax.runtime.errors import GdmError
from gdm_jax.training.workdir import load_ema

ROOT = pathlib.Path(__file__).parent
CONFIG = ROOT.parent / 'configs' / 'toy_2d_strategies.py'
RUNS = {  # title: strategy and order
  'k = 1: all at once': ('whole', (0,)),
  'k = 2: x1, then x2': ('elements', (0, 1)),
  'k = 2: x2, then x1': ('elements', (1, 0)),
}
STEPS = 64  # of a table, with Heun
HELD_OUT = 4096  # points; the model has seen 100,000 others
EDGE = 2.4  # of the square in which the density is mapped; the outermost modes end at 1.8
COLORS = ('tab:blue', 'tab:orange', 'tab:purple')  # while x1 moves, while x2 does, and both


def run(
  workdir: pathlib.Path, results: pathlib.Path, side: int, overrides: Sequence[str] = ()
) -> dict:
  """Trains, draws, and maps the density on side x side points; returns the report."""
  began = time.perf_counter()
  arguments = ['', f'--config={CONFIG}', f'--workdir={workdir}', *overrides]
  if code := main.main(arguments):
    sys.exit(code)
  trained = time.perf_counter()

  model = load(main.parse(arguments).config, workdir)
  paths = walk(model)
  densities = map_densities(model, grid := square(side))
  report = {title: summarise(nats, len(grid)) for title, nats in densities.items()}

  results.mkdir(parents=True, exist_ok=True)
  draw_paths(results / 'figure.png', {title: points[:, :200] for title, points in paths.items()})
  animate(results / 'trajectories.gif', model.tables, paths)
  maps = {title: np.exp(v[: len(grid)]).reshape(side, side) for title, v in densities.items()}
  draw_densities(results / 'density.png', maps, report)

  seconds = {'training': trained - began, 'figures': time.perf_counter() - trained}
  report['seconds'] = {name: round(s, 1) for name, s in seconds.items()}
  (results / 'report.json').write_text(json.dumps(report, indent=2) + '\n')
  return report


class Model(NamedTuple):
  """A trained model, and the table of each of RUNS."""

  predict: Partial
  process: Process
  tables: dict[str, Float[Array, 'rows 2']]


def load(config: ConfigDict, workdir: pathlib.Path) -> Model:
  """The model of a workdir."""
  system = build.system(config)
  params, _ = load_ema(config, workdir, system, sharding.mesh())
  tables = {
    title: system.process.table(
      schedule.sequential(order).over(system.strategies[name].indices), STEPS
    )
    for title, (name, order) in RUNS.items()
  }
  return Model(Partial(system.predictor, params), system.process, tables)


def walk(model: Model, count: int = 600) -> dict[str, Float[np.ndarray, 'rows n 2']]:
  """The points on every row of each table, from the same latents."""
  trajectory = jax.jit(sampling.trajectory, static_argnames='solver')
  z = sampling.latents(np.arange(count), (2, 1))
  return {
    title: np.asarray(trajectory(model.predict, model.process, table, z, solver='heun'))[..., 0]
    for title, table in model.tables.items()
  }


def square(side: int) -> Float[np.ndarray, 'n 2']:
  """side x side points of the square in which the density is mapped."""
  line = np.linspace(-EDGE, EDGE, side)
  return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)


def map_densities(
  model: Model, grid: Float[np.ndarray, 'n 2']
) -> dict[str, Float[np.ndarray, ' n']]:
  """The true log density and that of each table, on the grid and then on held-out points."""
  held_out = Mixture().sample(np.random.default_rng(1), HELD_OUT)[0]
  points = np.concatenate([grid, held_out])
  densities = {'truth': Mixture().log_density(points)}
  for title, table in model.tables.items():
    densities[title] = _log_density(model.predict, model.process, table, points, title)
  return densities


def summarise(log_density: Float[np.ndarray, ' n'], cells: int) -> dict[str, float]:
  """The integral over the grid, the first `cells` points, and the mean over the held-out ones."""
  area = (2 * EDGE / (cells**0.5 - 1)) ** 2
  return {
    'integral': float(np.exp(log_density[:cells]).sum() * area),
    'held_out_nats': float(log_density[cells:].mean()),
  }


def _log_density(predict, process, table, points, title, batch=1024):
  """log p of the model at points [n, 2], in nats."""
  nats = []
  batches = list(padded_batches(len(points), batch))
  for indices, valid in tqdm.tqdm(batches, desc=f'likelihood, {title}', disable=None):
    groups = _of_batch(predict, process, table, points[indices][..., None].astype(np.float32))
    nats.append(np.asarray(groups).sum(-1)[:valid])
  return np.concatenate(nats)


_of_batch = jax.jit(likelihood.log_likelihood)


def draw_paths(file: pathlib.Path, paths: dict[str, Float[np.ndarray, 'rows n 2']]):
  """From noise (grey) to data (black), a line coloured by the coordinates that move."""
  figure, axes = _panels(len(paths), margin=0.4)
  for axis, (title, points) in zip(axes, paths.items(), strict=True):
    segments = np.stack([points[:-1], points[1:]], 2).reshape(-1, 2, 2)
    moves = np.abs(np.diff(segments, axis=1))[:, 0] > 1e-6
    stage = moves @ [1, 2] - 1  # x1, x2 or both
    lines = LineCollection(segments, colors=[COLORS[i] for i in stage], linewidths=0.7, alpha=0.5)
    axis.add_collection(lines)
    axis.scatter(*points[0].T, s=6, color='0.65', zorder=2, label='noise')
    axis.scatter(*points[-1].T, s=6, color='black', zorder=3, label='data')
    axis.set_title(title)
  lines = [plt.Line2D([], [], color=color) for color in COLORS]
  dots = axes[0].get_legend_handles_labels()[0]
  names = ['x1 moves', 'x2 moves', 'both move', 'noise', 'data']
  figure.legend([*lines, *dots], names, loc='outside lower center', ncols=5, frameon=False)
  figures.finish(figure, file, bbox_inches='tight')


def animate(
  file: pathlib.Path,
  tables: dict[str, Float[Array, 'rows 2']],
  paths: dict[str, Float[np.ndarray, 'rows n 2']],
  every: int = 2,
):
  """All points during generation, coloured as in `draw_paths`, every second row of the table."""
  figure, axes = _panels(len(paths), dpi=70, margin=0.4)
  dots = [axis.scatter([], [], s=5) for axis in axes]
  pictures = []
  for row in range(0, STEPS + 1, every):
    for axis, dot, title in zip(axes, dots, paths, strict=True):
      level = np.asarray(tables[title])
      moves = level[row] != level[max(row - every, 0)]
      dot.set_offsets(paths[title][row])
      ends = '0.4' if row == 0 else 'black'
      dot.set_color(COLORS[moves @ [1, 2] - 1] if 0 < row < STEPS else ends)
      axis.set_title(f'{title}\nA = ({level[row][0]:.2f}, {level[row][1]:.2f})')
    figure.canvas.draw()
    pictures.append(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
  plt.close(figure)
  figures.animate(file, pictures)


def draw_densities(
  file: pathlib.Path, maps: dict[str, Float[np.ndarray, 'side side']], report: dict
):
  """The density over the square, all to one scale."""
  figure, axes = _panels(len(maps))
  scale = colors.PowerNorm(0.5, 0, maps['truth'].max())  # the square root, to show what is faint
  for axis, (title, density) in zip(axes, maps.items(), strict=True):
    extent = (-EDGE, EDGE, -EDGE, EDGE)
    image = axis.imshow(
      density, norm=scale, cmap='magma', extent=extent, origin='lower', interpolation='bilinear'
    )
    numbers = report[title]
    axis.set_title(
      f'{title}\nintegral {numbers["integral"]:.4f}\nheld out {numbers["held_out_nats"]:.3f} nats'
    )
  figure.colorbar(image, ax=axes, shrink=0.7, pad=0.01, label='density', ticks=[0, 0.1, 0.5, 1, 2])
  figures.finish(figure, file, bbox_inches='tight')


def _panels(count, dpi=110, margin=0.0):
  figure, axes = plt.subplots(
    *(1, count), figsize=(3.6 * count, 4.4), dpi=dpi, layout='constrained', sharey=True
  )
  edge = EDGE + margin
  for axis in axes:
    axis.set(xlim=(-edge, edge), ylim=(-edge, edge), xlabel='x1', xticks=range(-2, 3))
    axis.set_box_aspect(1)
  axes[0].set(ylabel='x2', yticks=range(-2, 3))
  return figure, axes


def command(argv: Sequence[str]):
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--workdir', type=pathlib.Path, default='runs/toy_2d_experiment', help='of the training')
  add('--results', type=pathlib.Path, default=ROOT / 'results' / 'toy_2d', help='of the figures')
  add('--side', type=int, default=96, help='of the grid on which the density is mapped')
  a, overrides = parser.parse_known_args(argv)  # such as --config.train.duration=1000000
  try:
    print(json.dumps(run(a.workdir, a.results, a.side, overrides), indent=2))
  except GdmError as error:
    main.leave(main.fail(error, error.exit_code))


if __name__ == '__main__':
  command(sys.argv[1:])
