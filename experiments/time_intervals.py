"""Table 2: time intervals of training by time intervals of generation, for a frequency model.

  python -m experiments.time_intervals --config=configs/digits_frequency.py

Trains a model for each of the training intervals, in workdir/trained/, unless it exists, and
evaluates each with all intervals of generation, from --repeats sets of seeds. An interval is
written as its boundaries t_end_4-t_end_3-t_end_2. The paper, FID10K on FFHQ 64 x 64 with bands
[0,29], [30,99], [100,499] and the rest: training (0.6, 0.8, 0.9) with generation (0.1, 0.2, 0.3)
is best, high frequencies emphasised in training and low ones in generation. Intervals of generation
say how the steps are shared out: give it several steps a group. At the paper's scale, five runs of
EDM's length:

  python -m experiments.time_intervals --config=configs/ffhq64_frequency.py --repeats=1 \\
    --config.data.name=folder:FFHQ --config.evaluation.weights=inception.npz

Any config whose strategy has four groups will do.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from experiments import paper
from experiments.lib import command, report
from experiments.lib.study import Study, spread_caption, statistics, train
from gdm_jax import build, figures
from gdm_jax.runtime.errors import ConfigError

TRAINING, GENERATION = paper.TRAINING, paper.GENERATION


def run(config, workdir: pathlib.Path, arguments: Sequence[str], *, repeats: int = 3):
  """Trains a model on each of TRAINING. Raises ConfigError for another number of groups."""
  name, order = build.sampling_order(config, build.system(config).strategies)
  if len(order) != len(TRAINING[0]) + 1:
    raise ConfigError(f'strategies.{name}: {len(order)} groups; the intervals are for four')
  command.refuse(arguments, 'strategies')
  folders = [workdir / 'trained' / name_of(cuts) for cuts in TRAINING]
  for cuts, folder in zip(TRAINING, folders, strict=True):
    train(folder, [*arguments, f'--config.strategies.{name}.cuts={",".join(map(str, cuts))}'])

  study, rows = Study('time_intervals', workdir), []
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


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  metric, summary = rows['metric'].iloc[0], statistics(rows, ['model', 'cuts'])
  corner = f'{metric}: training / generation'
  training, generation = summary['mean'].idxmin()
  paper_training, paper_generation = map(name_of, min(paper.TABLE_2, key=paper.TABLE_2.get))
  one_model = rows[rows['model'] == rows['model'].iloc[0]]
  return report.pivot(summary['text'], corner, rows['cuts'].unique()), [
    f'The lowest {metric} is that of training ({training}) with generation '
    f'({generation}); in the paper it is ({paper_training}) with '
    f'({paper_generation}). '
    f'{spread_caption(one_model)} A line is a model.'
  ]


def draw(file: pathlib.Path, rows: pd.DataFrame):
  """The heat map; dark is good."""
  table = statistics(rows, ['model', 'cuts'])['mean'].unstack(sort=False)
  values = table.to_numpy()
  figure, axes = plt.subplots(figsize=(8, 4), dpi=120, layout='constrained')
  image = axes.imshow(values, cmap='viridis')
  middle = (values.min() + values.max()) / 2
  for (i, j), value in np.ndenumerate(values):
    color = 'white' if value < middle else 'black'
    axes.text(j, i, f'{value:.3g}', ha='center', va='center', color=color, fontsize=8)
  axes.set_xticks(range(len(table.columns)), table.columns, rotation=30, ha='right')
  axes.set_yticks(range(len(table)), table.index)
  axes.set(xlabel='generation: t_end_4, t_end_3, t_end_2', ylabel='training')
  figure.colorbar(image, label=rows['metric'].iloc[0])
  figures.finish(figure, file)


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
