"""Fig. 2: how images are generated: all frequencies at once with k = 1, band by band in GDM-F.

  python -m gdm_jax.main --config=configs/digits_frequency.py
  python -m gdm_jax.main --config=configs/digits_frequency.py --workdir=runs/digits_whole \\
    --config.strategies.main.grouping=whole --config.strategies.main.groups= \\
    --config.strategies.main.order=0 --config.strategies.main.cuts=
  python -m experiments.generation_process --config=configs/digits_frequency.py \\
    --models=runs/digits_whole

Generates --images images with the models of --models and of the workdir, from the same latents.
Between steps it takes the point z_t, and the image x^ that the network expects of it, in which
groups that have not begun are as in the mean image: a model may be trained on the active group
alone. `done` is how much of a band is decided: the share of the variance, over images, of the final
images' coefficients that x^ explains, 1 - sum |x^ - x|^2 / sum |x - mean x|^2; the bands are those
of the workdir. figure.png has --shown images during generation, bands.png the bands of each model.
In the paper details such as eyes are visible early with k = 1, while GDM-F goes strictly from low
to high.
"""

import pathlib
from collections.abc import Mapping
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib import pyplot as plt

from experiments.lib import command
from experiments.lib.study import Model, Study, workdirs
from experiments.lib.subject import check_finite
from gdm_jax import build, figures
from gdm_jax.basis import Basis
from gdm_jax.evaluation import evaluator
from gdm_jax.generation import editing
from gdm_jax.generation.generator import Generator, chunks
from gdm_jax.latents import Mask

ROWS = 32  # of a table that are measured, roughly
COLUMNS = 9  # of them in figure.png
SAMPLED = tuple(key for key in evaluator.SAMPLED if key != 'seeds')
KEYS = ('model', *evaluator.MODEL, *SAMPLED, 'basis', 'images', 'row', 'band')
VALUES = ('done',)

Points = Float[np.ndarray, 'rows n *grid c']


def run(
  config, workdir: pathlib.Path, *, models: str = '', images: Annotated[int, 2] = 64, shown: int = 1
):
  """Follows images of all models. Raises ConfigError if a workdir holds no model."""
  study = Study('generation_process', workdir, KEYS, VALUES)
  system = build.system(config)
  bands = editing.masks(system, build.sampling_order(config, system.strategies)[0])
  others = workdirs(models, workdir) if models else []
  parts, lines = [], []
  for model in study.models(config, [*others, workdir]):
    fit_sampling_to_model(model, len(bands))
    points, expected = intermediate_images(model, images)
    parts.append(measure(study, model, config, system.process.basis, bands, expected))
    lines += sheet_lines(model.name, points[:, :shown], expected[:, :shown], rows_of(model))
  rows = pd.concat(parts)
  pictures = [study.folder / f'{name}.png' for name in ('figure', 'bands')]
  figures.sheet(pictures[0], lines)
  draw(pictures[1], rows)
  study.publish(__doc__, *summarise(rows), pictures, rows, model.config)


def measure(
  study: Study, model: Model, config, basis: Basis, bands: Mapping[str, Mask], expected
) -> pd.DataFrame:
  """The rows of a model: how much of each band is decided at each row of its table."""
  key = {
    'model': model.name,
    **evaluator.provenance(model.config, model.system, model.checkpoint),
    'basis': basis_of(config),
    'images': expected.shape[1],
  }
  rows = []
  for band, mask in bands.items():
    fractions = fraction_decided(basis, expected, mask)
    for row, fraction in zip(rows_of(model), fractions, strict=True):
      values = {'done': float(fraction)}
      rows.append(study.cells.measure({**key, 'row': row, 'band': band}, lambda v=values: v))
  return pd.DataFrame(rows)


def basis_of(config) -> str:
  """The basis and the options of the blur, for results.csv."""
  return '-'.join(str(value) for value in (config.basis.name, *config.basis.blur.values()))


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  table = rows.groupby(['model', 'band'], sort=False)[['row', 'done']].apply(decision_times)
  return table.reset_index(), [
    'When a tenth, half and nine tenths of a band are decided, as fractions of the steps; '
    f'{rows["images"].iloc[0]} images from the same latents.'
  ]


def decision_times(rows: pd.DataFrame) -> pd.Series:
  """The first rows at which a tenth, half and nine tenths of a band are decided, as fractions."""
  row, done = rows['row'].astype(int), rows['done'].astype(float)
  times = {f'{share:.0%}': row[done >= share].iloc[0] for share in (0.1, 0.5, 0.9)}
  return pd.Series({share: f'{time / row.iloc[-1]:.2f}' for share, time in times.items()})


def fit_sampling_to_model(model: Model, groups: int):
  """Resets sampling options that assume a different number of groups."""
  c = model.config.sampling
  if c.strategy not in model.system.strategies:
    c.strategy = ''
  name, strategy = c.strategy or next(iter(model.system.strategies)), model.system.strategies
  if strategy[name].num_groups != groups:
    c.update(order=(), cuts=(), steps=(sum(c.steps),))


def intermediate_images(model: Model, count: int) -> tuple[Points, Points]:
  """Images of the first seeds during generation: z_t and the image expected of it, at `rows_of`."""
  process = model.system.process
  seeds = np.arange(count, dtype=np.uint32)
  labels = build.sampling_labels(model.config, seeds)
  table = build.sampling_table(model.config, model.system)
  guidance = build.sampling_guidance(model.config, model.system)
  generator = Generator.from_config(model.config, model.system, model.mesh)

  @jax.jit
  def expect(params, x, level):
    predict = model.system.predictor.bind(params, labels, guidance)
    alpha = jnp.broadcast_to(level, (count, len(level)))
    return process.advance(x, predict(x, alpha), alpha, jnp.ones_like(alpha))

  params, rows = model.checkpoint.params, rows_of(model)
  states = generator.iterate(params, table, seeds, labels=labels, chunk_steps=_chunk_steps(table))
  points = [check_finite(generator.to_host(x, count)) for x in states]
  mean = np.broadcast_to(points[-1].mean(0), points[-1].shape)
  expected = []
  for x, row in zip(points, rows, strict=True):
    begun = np.asarray(table[min(row + 1, rows[-1])] > 0, np.float32)
    expected.append(process.replace(mean, expect(params, x, table[row]), begun))
  return np.stack(points), np.stack(expected)


def rows_of(model: Model) -> Int[np.ndarray, ' rows']:
  """About ROWS rows of the model's table, with the first and the last."""
  table = build.sampling_table(model.config, model.system)
  parts = chunks(table, _chunk_steps(table))
  return np.cumsum([0, *(len(part) - 1 for part in parts)])


def _chunk_steps(table):
  return max((len(table) - 1) // ROWS, 1)


def fraction_decided(basis: Basis, expected: Points, mask: Mask) -> Float[np.ndarray, ' rows']:
  """Fraction of the band's final variance already explained by the expected image at each row."""
  c = np.asarray(basis.analyze(expected)) * np.asarray(mask)
  final = c[-1]
  wrong = ((c - final) ** 2).sum(tuple(range(1, c.ndim)))
  return 1 - wrong / ((final - final.mean(0)) ** 2).sum()


def sheet_lines(name: str, points: Points, expected: Points, numbers) -> list:
  """Lines of `figures.sheet`: z_t and the expected image, for each image."""
  columns = np.linspace(0, len(numbers) - 1, min(COLUMNS, len(numbers))).round().astype(int)
  return [
    (f'{name}\n{kind}', [(f'{numbers[i]} steps', images[i, n]) for i in columns])
    for n in range(points.shape[1])
    for kind, images in (('z_t', points), ('expected', expected))
  ]


def draw(file: pathlib.Path, rows: pd.DataFrame):
  """A panel for each model: how much of each band is decided, against the steps."""
  models = rows.astype({'row': int, 'done': float}).groupby('model', sort=False)
  figure, axes = plt.subplots(
    1, len(models), figsize=(5 * len(models), 3.5), dpi=120, layout='constrained', squeeze=False
  )
  for axis, (name, group) in zip(axes[0], models, strict=True):
    for band, line in group.groupby('band', sort=False):
      axis.plot(line['row'], line['done'], 'o-', ms=3, label=band)
    axis.set(title=name, xlabel='steps', ylabel='share of the band decided', ylim=(-0.1, 1.05))
    axis.grid(alpha=0.3)
    axis.legend()
  figures.finish(figure, file)


if __name__ == '__main__':
  command.start(run, __doc__)
