"""Fig. 1a: a 2-D Gaussian mixture, one coordinate after the other, and its exact likelihood.

  python -m experiments.toy_2d [--workdir=runs/toy_2d_experiment]

Trains one MLP on two strategies (configs/toy_2d_strategies.py): all at once, k = 1, and coordinate
by coordinate, k = 2, in both orders. Draws the paths from noise to data (figure.png), the points on
their way (trajectories.gif), and the model's density, by the exact trace, beside the true one
(density.png); prints its integral over the plane and its mean logarithm on held-out points
(report.json). About three minutes on two cores, training included; run again, it goes on where it
was stopped, and a trained workdir is not trained again.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Sequence

import jax
import numpy as np
import tqdm
from jax.tree_util import Partial
from jaxtyping import Array, Float
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection

from configs import toy_2d_strategies
from gdm_jax import build, figures, likelihood, main, sampling, schedule, sharding
from gdm_jax.data.sources import Mixture
from gdm_jax.training import checkpoint

ROOT = pathlib.Path(__file__).parent
CONFIG = ROOT.parent / 'configs' / 'toy_2d_strategies.py'
RUNS = {  # title: strategy and order
  'all at once (k = 1)': ('whole', (0,)),
  '$x_1$, then $x_2$ (k = 2)': ('elements', (0, 1)),
  '$x_2$, then $x_1$ (k = 2)': ('elements', (1, 0)),
}
STEPS = 64  # of a table, with Heun
HELD_OUT = 4096  # points; the model has seen 100,000 others
EDGE = 2.4  # of the square in which the density is mapped; the outermost modes end at 1.8
COLORS = ('tab:blue', 'tab:orange', 'tab:purple')  # while x1 moves, while x2 does, and both


def run(workdir: pathlib.Path, results: pathlib.Path, images: int, side: int) -> dict:
  """Trains on `images`, draws, maps the density on side x side points; returns the report."""
  began = time.perf_counter()
  arguments = [f'--config={CONFIG}', f'--workdir={workdir}', f'--config.train.duration={images}']
  if code := main.main(['', *arguments]):
    sys.exit(code)
  trained = time.perf_counter()

  config = toy_2d_strategies.get_config()
  system, mesh = build.system(config), sharding.mesh()
  params, _ = checkpoint.trained(config, workdir, system, mesh)
  predict = Partial(system.predict, params)
  tables = {
    title: schedule.table(schedule.sequential(order), STEPS)[:, system.strategies[name].indices]
    for title, (name, order) in RUNS.items()
  }

  results.mkdir(parents=True, exist_ok=True)
  walk = jax.jit(sampling.trajectory, static_argnames='solver')
  z = sampling.latents(np.arange(600), (2, 1))
  paths = {
    title: np.asarray(walk(predict, system.process, table, z, solver='heun'))[..., 0]
    for title, table in tables.items()
  }
  draw_paths(results / 'figure.png', {title: points[:, :160] for title, points in paths.items()})
  animate(results / 'trajectories.gif', tables, paths)

  line = np.linspace(-EDGE, EDGE, side)
  grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
  held_out = Mixture().sample(np.random.default_rng(1), HELD_OUT)[0]
  points, area = np.concatenate([grid, held_out]), (line[1] - line[0]) ** 2
  truth = Mixture().log_density(points)
  densities, report = {'truth': truth}, {'truth': _figures_of(truth, len(grid), area)}
  for title, table in tables.items():
    densities[title] = _log_density(predict, system.process, table, points, title)
    report[title] = _figures_of(densities[title], len(grid), area)
  maps = {title: np.exp(v[: len(grid)]).reshape(side, side) for title, v in densities.items()}
  draw_densities(results / 'density.png', maps, report)

  report['seconds_of_training'] = round(trained - began, 1)  # few where it was trained before
  report['seconds'] = round(time.perf_counter() - began, 1)
  (results / 'report.json').write_text(json.dumps(report, indent=2) + '\n')
  return report


def _log_density(predict, process, table, points, title, batch=1024):
  """log p of the model at points [n, 2], in nats."""

  @jax.jit
  def of_batch(predict, table, x):
    return likelihood.log_likelihood(predict, process, table, x).sum(-1)

  found = []
  bar = tqdm.tqdm(range(0, len(points), batch), desc=f'likelihood, {title}', disable=None)
  for i in bar:
    some = np.resize(points[i : i + batch], (batch, 2))  # the last batch too: one program
    found.append(np.asarray(of_batch(predict, table, some[..., None].astype(np.float32))))
  return np.concatenate(found)[: len(points)]


def _figures_of(log_density, cells, area):
  """The integral over the grid, and the mean over the held-out points."""
  return {
    'integral': float(np.exp(log_density[:cells]).sum() * area),
    'held_out_nats': float(log_density[cells:].mean()),
  }


def draw_paths(file: pathlib.Path, paths: dict[str, Float[np.ndarray, 'rows n 2']]):
  """From noise (grey) to data (black), a line coloured by the coordinates that move."""
  figure, axes = _panels(len(paths))
  for axis, (title, points) in zip(axes, paths.items(), strict=True):
    segments = np.stack([points[:-1], points[1:]], 2).reshape(-1, 2, 2)
    moves = np.abs(np.diff(segments, axis=1))[:, 0] > 1e-6
    stage = moves @ [1, 2] - 1  # x1, x2 or both
    lines = LineCollection(segments, colors=[COLORS[i] for i in stage], linewidths=0.7, alpha=0.5)
    axis.add_collection(lines)
    axis.scatter(*points[0].T, s=7, color='0.6', zorder=2, label='noise')
    axis.scatter(*points[-1].T, s=7, color='black', zorder=3, label='data')
    axis.set_title(title)
  handles = [plt.Line2D([], [], color=c) for c in COLORS]
  dots = axes[0].get_legend_handles_labels()[0]
  labels = ['$x_1$ moves', '$x_2$ moves', 'both move', 'noise', 'data']
  figure.legend([*handles, *dots], labels, loc='outside lower center', ncols=5, frameon=False)
  figure.savefig(file)
  plt.close(figure)


def animate(
  file: pathlib.Path,
  tables: dict[str, Float[Array, 'rows 2']],
  paths: dict[str, Float[np.ndarray, 'rows n 2']],
  every: int = 2,
):
  """All points on their way, coloured as in `draw_paths`, every second row of the table."""
  figure, axes = _panels(len(paths), dpi=70)
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
    shown = axis.imshow(density, norm=scale, cmap='magma', extent=extent, origin='lower')
    found = report[title]
    axis.set_title(
      f'{title}\nintegral {found["integral"]:.4f}\nheld out {found["held_out_nats"]:.3f} nats'
    )
  figure.colorbar(shown, ax=axes, shrink=0.8, label='density')
  figure.savefig(file)
  plt.close(figure)


def _panels(count, dpi=110):
  figure, axes = plt.subplots(
    *(1, count), figsize=(3.6 * count, 4), dpi=dpi, layout='constrained', sharex=True, sharey=True
  )
  for axis in axes:
    axis.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect='equal', xlabel='$x_1$')
  axes[0].set_ylabel('$x_2$')
  return figure, axes


def command(argv: Sequence[str]):
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--workdir', type=pathlib.Path, default='runs/toy_2d_experiment', help='of the training')
  add('--results', type=pathlib.Path, default=ROOT / 'results' / 'toy_2d', help='of the figures')
  add('--images', type=int, default=6_000_000, help='to train on')
  add('--side', type=int, default=96, help='of the grid on which the density is mapped')
  a = parser.parse_args(argv)
  print(json.dumps(run(a.workdir, a.results, a.images, a.side), indent=2))


if __name__ == '__main__':
  command(sys.argv[1:])
