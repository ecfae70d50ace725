"""Fig. 2: how images come about: all frequencies at once with k = 1, band by band in GDM-F.

  python -m gdm_jax.main --config=configs/digits_frequency.py
  python -m gdm_jax.main --config=configs/digits_frequency.py --workdir=runs/digits_whole \\
    --config.strategies.main.grouping=whole --config.strategies.main.groups= \\
    --config.strategies.main.order=0 --config.strategies.main.cuts=
  python -m experiments.generation_process --config=configs/digits_frequency.py \\
    --models=runs/digits_whole

Generates --images images with the models of --models and of the workdir, from the same latents,
and takes on the way the point z_t and the image that the network expects of it, x^, where groups
that have not begun are as in the mean image: a model may be trained on the active group alone.
`done` is how much of a band is decided: the share of the variance, over images, of the final
images' coefficients that x^ has got right, 1 - sum |x^ - x|^2 / sum |x - mean x|^2; the bands are
those of the workdir.
figure.png shows --shown images on their way, bands.png the bands of each model. In the paper
details such as eyes are visible early with k = 1, while GDM-F goes strictly from low to high.
"""

import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from matplotlib import pyplot as plt

from experiments.lib import command, report, study
from experiments.lib.subject import check_counts, check_finite
from gdm_jax import build, figures, sampling
from gdm_jax.basis import Basis
from gdm_jax.evaluation import evaluator
from gdm_jax.generation import editing
from gdm_jax.generation.generator import Generator, chunks
from gdm_jax.latents import Mask

ROWS = 32  # of a table that are looked at, about
COLUMNS = 9  # of them in figure.png
KEYS = (
  *(
    'model',
    *evaluator.MODEL,
    'strategy',
    'order',
    'cuts',
    'steps',
    'solver',
    'guidance',
    'labels',
  ),
  *('basis', 'images', 'row', 'band'),
)
VALUES = ('done',)

Points = Float[np.ndarray, 'rows n *grid c']


def run(config, workdir: pathlib.Path, *, models: str = '', images: int = 64, shown: int = 1):
  """Measures, draws and reports. Raises ConfigError where a workdir holds no model."""
  check_counts(2, images=images)
  check_counts(1, shown=shown)
  found = study.Study('generation_process', workdir, KEYS, VALUES)
  own = build.system(config)
  bands = editing.masks(own, build.sampling_order(config, own.strategies)[0])
  others = study.workdirs(models, workdir) if models else []
  lines, rows = [], {}
  for model in found.models(config, [*others, workdir]):
    settle(model, len(bands))
    key = {
      'model': model.name,
      **evaluator.provenance(model.config, model.system, model.weights),
      'basis': '-'.join(str(value) for value in config.basis.values()),
      'images': images,
    }
    numbers = rows_of(model)
    keys = [{**key, 'row': row, 'band': band} for band in bands for row in numbers]
    missing = [key for key in keys if key not in found.cells]
    points, guesses = on_its_way(model, images)
    if missing:
      shares = {name: done(own.process.basis, guesses, mask) for name, mask in bands.items()}
      values = {
        (name, n): v for name, some in shares.items() for n, v in zip(numbers, some, strict=True)
      }
      found.cells.add(
        *({**key, 'done': f'{values[key["band"], key["row"]]:.6g}'} for key in missing)
      )
    rows[model.name] = [found.cells.get(key) for key in keys]
    lines += shown_lines(model.name, points[:, :shown], guesses[:, :shown], numbers)

  pictures = [found.folder / f'{name}.png' for name in ('figure', 'bands')]
  figures.sheet(pictures[0], lines)
  draw(pictures[1], rows)
  table = [
    {'model': name, 'band': band, **half_way([row for row in some if row['band'] == band])}
    for name, some in rows.items()
    for band in bands
  ]
  said = [
    'When a tenth, half and nine tenths of a band are decided, as fractions of the steps; '
    f'{images} images from the same latents.'
  ]
  every = [row for some in rows.values() for row in some]
  report.publish(found.folder, __doc__, table, said, pictures, every, model.config)


def settle(model: study.Model, groups: int):
  """Takes from the config's sampling what is for another number of groups than the model's."""
  c = model.config.sampling
  if c.strategy not in model.system.strategies:
    c.strategy = ''
  name, strategy = c.strategy or next(iter(model.system.strategies)), model.system.strategies
  if strategy[name].num_groups != groups:
    c.update(order=(), cuts=(), steps=(sum(c.steps),))


def on_its_way(model: study.Model, count: int) -> tuple[Points, Points]:
  """Images of the first seeds on their way: z_t, and the image expected of it, at `rows_of`."""
  c, process = model.config.sampling, model.system.process
  seeds = np.arange(count, dtype=np.uint32)
  labels = build.sampling_labels(model.config, seeds)
  table = build.sampling_table(model.config, model.system)
  generator = Generator(model.system, model.config.data.shape, c.solver, model.mesh, c.guidance)

  @jax.jit
  def expected(params, x, level):
    predict = sampling.guided(functools.partial(model.system.predict, params), labels, c.guidance)
    alpha = jnp.broadcast_to(level, (count, len(level)))
    return process.advance(x, predict(x, alpha), alpha, jnp.ones_like(alpha))

  params, rows = model.weights.params, rows_of(model)
  states = generator.iterate(params, table, seeds, labels=labels, piece=_piece(table))
  points = [check_finite(generator.to_host(x, count)) for x in states]
  mean = np.broadcast_to(points[-1].mean(0), points[-1].shape)
  guesses = []
  for x, row in zip(points, rows, strict=True):
    begun = np.asarray(table[min(row + 1, rows[-1])] > 0, np.float32)
    guesses.append(process.replace(mean, expected(params, x, table[row]), begun))
  return np.stack(points), np.stack(guesses)


def rows_of(model: study.Model) -> Int[np.ndarray, ' rows']:
  """The rows of the model's table that are looked at, about ROWS, the first and the last too."""
  table = build.sampling_table(model.config, model.system)
  parts = chunks(table, _piece(table))
  return np.cumsum([0, *(len(part) - 1 for part in parts)])


def _piece(table):
  return max((len(table) - 1) // ROWS, 1)


def done(basis: Basis, guesses: Points, mask: Mask) -> Float[np.ndarray, ' rows']:
  """The share of a band's variance in the last images that each row's expected images have."""
  c = np.asarray(basis.analyze(guesses)) * np.asarray(mask)
  final = c[-1]
  wrong = ((c - final) ** 2).sum(tuple(range(1, c.ndim)))
  return 1 - wrong / ((final - final.mean(0)) ** 2).sum()


def shown_lines(name: str, points: Points, guesses: Points, numbers) -> list:
  """Lines of `figures.sheet`: z_t and the expected image, for each image."""
  columns = np.linspace(0, len(numbers) - 1, min(COLUMNS, len(numbers))).round().astype(int)
  return [
    (f'{name}\n{what}', [(f'{numbers[i]} steps', images[i, n]) for i in columns])
    for n in range(points.shape[1])
    for what, images in (('z_t', points), ('expected', guesses))
  ]


def half_way(rows: Sequence[dict[str, str]]) -> dict[str, str]:
  """When a band is decided: the first of the rows at which so much is done."""
  last = int(rows[-1]['row'])
  return {
    f'{share:.0%}': f'{next(int(r["row"]) for r in rows if float(r["done"]) >= share) / last:.2f}'
    for share in (0.1, 0.5, 0.9)
  }


def draw(file: pathlib.Path, rows: dict[str, list[dict[str, str]]]):
  """A panel for each model: what is done of each band against the steps."""
  figure, axes = plt.subplots(
    1, len(rows), figsize=(5 * len(rows), 3.5), dpi=120, layout='constrained', squeeze=False
  )
  for axis, (name, some) in zip(axes[0], rows.items(), strict=True):
    for band in dict.fromkeys(row['band'] for row in some):
      points = [(int(row['row']), float(row['done'])) for row in some if row['band'] == band]
      axis.plot(*zip(*points, strict=True), 'o-', ms=3, label=band)
    axis.set(title=name, xlabel='steps', ylabel='share of the band decided', ylim=(-0.1, 1.05))
    axis.grid(alpha=0.3)
    axis.legend()
  figures.finish(figure, file)


if __name__ == '__main__':
  command.start(run, __doc__)
