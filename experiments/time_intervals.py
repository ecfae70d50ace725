"""Table 2: time intervals of training by time intervals of generation, for a frequency model.

  python -m experiments.time_intervals --config=configs/digits_frequency.py

Trains a model for each of the training intervals, in workdir/trained/, unless it exists, and
evaluates each with all intervals of generation, from --repeats sets of seeds. An interval is
written as its boundaries t_end_4-t_end_3-t_end_2. The paper, FID10K on FFHQ 64 x 64 with bands
[0,29], [30,99], [100,499] and the rest: training (0.6, 0.8, 0.9) with generation (0.1, 0.2, 0.3)
is best, high frequencies emphasised in training and low ones in generation. Intervals of generation
say how the steps are shared out: give it several steps a group. --probe=20000 adds a model trained
on the intervals that the losses of a probe of so many images propose (`find_intervals`). At the
paper's scale, five runs of EDM's length:

  python -m experiments.time_intervals --config=configs/ffhq64_frequency.py --repeats=1 \\
    --config.data.name=folder:FFHQ --config.evaluation.weights=inception.npz

Any config whose strategy has four groups will do.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from experiments import find_intervals, paper
from experiments.lib import command, report
from experiments.lib.study import Study, spread_caption, statistics, train
from gdm_jax import build, figures
from gdm_jax.runtime.errors import ConfigError

TRAINING, GENERATION = paper.TRAINING, paper.GENERATION


def run(
  config, workdir: pathlib.Path, arguments: Sequence[str], *, repeats: int = 3, probe: int = 0
):
  """Trains a model on each of TRAINING, and on the intervals that a probe of some images finds.

  Raises ConfigError for another number of groups.
  """
  name, order = build.sampling_order(config, build.system(config).strategies)
  if len(order) != len(TRAINING[0]) + 1:
    raise ConfigError(f'strategies.{name}: {len(order)} groups; the intervals are for four')
  command.refuse(arguments, 'strategies')
  training = list(TRAINING)
  if probe:
    training.append(find_intervals.find(config, workdir, arguments, probe))
  folders = [workdir / 'trained' / name_of(cuts) for cuts in training]
  for cuts, folder in zip(training, folders, strict=True):
    train(folder, [*arguments, f'--config.strategies.{name}.cuts={",".join(map(str, cuts))}'])

  study, rows = Study('time_intervals', workdir, judge=config.evaluation.features), []
  for model in study.models(config, folders):
    for cuts in GENERATION:
      rows += study.measure(model, repeats, strategy=name, cuts=cuts)
  rows = pd.DataFrame(rows)
  picture = study.folder / 'figure.png'
  draw(picture, rows)
  study.publish(__doc__, *summarise(rows), [picture], rows, model.config)


def name_of(cuts: Sequence[float]) -> str:
  """Intervals as text, also the name of the model that is trained on them."""
  return '-'.join(map(str, cuts))


PAPER = {tuple(map(name_of, cell)): fid for cell, fid in paper.TABLE_2.items()}
"""FID10K of the paper by training and generation."""


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  metric, summary = rows['metric'].iloc[0], statistics(_labelled(rows), ['model', 'cuts'])
  corner = f'{metric}; kernel distance; FID10K of the paper: training / generation'
  texts = summary['text'] + '; ' + summary['kernel'] + summary.index.map(_paper_text)
  training, generation = summary['mean'].idxmin()
  lines = summary.groupby('model')['mean'].agg(['mean', 'min']).sort_values('mean', kind='stable')
  ranking = [f'{line.Index} {line.mean:.4g} ({line.min:.4g})' for line in lines.itertuples()]
  paper_training, paper_generation = map(name_of, min(paper.TABLE_2, key=paper.TABLE_2.get))
  one_model = rows[rows['model'] == rows['model'].iloc[0]]
  return report.pivot(texts, corner, rows['cuts'].unique()), [
    f'The lowest {metric} is that of training ({training}) with generation '
    f'({generation}); in the paper it is ({paper_training}) with '
    f'({paper_generation}). '
    f'{spread_caption(one_model)} A line is a model.',
    f'Means over the columns, and the least of each line: {", ".join(ranking)}. '
    'One training each: how much of that is its luck, this does not tell.',
  ]


def _labelled(rows):
  """Rows whose models say so if a probe found their intervals."""
  named = rows['model'].isin([name_of(cuts) for cuts in TRAINING])
  return rows.assign(model=rows['model'].where(named, rows['model'] + ' (probe)'))


def _paper_text(cell: tuple[str, str]) -> str:
  value = PAPER.get(cell)
  return f'; {value:.2f}' if value else ''


def draw(file: pathlib.Path, rows: pd.DataFrame):
  """Heat maps of ours and of the paper's; dark is good."""
  ours = statistics(_labelled(rows), ['model', 'cuts'])['mean'].unstack(sort=False)
  papers = pd.Series(PAPER).unstack(sort=False).reindex(columns=ours.columns)
  figure, panels = plt.subplots(2, 1, figsize=(8, 8), dpi=120, layout='constrained', sharex=True)
  titles = rows['metric'].iloc[0], 'FID10K on FFHQ 64 x 64, the paper'
  for axes, table, title in zip(panels, (ours, papers), titles, strict=True):
    values = table.to_numpy()
    image = axes.imshow(values, cmap='viridis')
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (i, j), value in np.ndenumerate(values):
      color = 'white' if value < middle else 'black'
      axes.text(j, i, f'{value:.4g}', ha='center', va='center', color=color, fontsize=8)
    axes.set_yticks(range(len(table)), table.index)
    axes.set(ylabel='training', title=title)
    figure.colorbar(image)
  panels[-1].set_xticks(range(len(ours.columns)), ours.columns, rotation=30, ha='right')
  panels[-1].set(xlabel='generation: t_end_4, t_end_3, t_end_2')
  figures.finish(figure, file)


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
