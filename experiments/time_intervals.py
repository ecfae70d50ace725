"""Table 2: time intervals of training by time intervals of generation, for a frequency model.

  python -m experiments.time_intervals --config=configs/digits_frequency.py

Trains a model for each of the training intervals, in workdir/trained/, unless it is there, and
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
from jaxtyping import Float
from matplotlib import pyplot as plt

from experiments.lib import command, study
from experiments.paper import TABLE_2_BEST
from gdm_jax import build, figures
from gdm_jax.runtime.errors import ConfigError

TRAINING = (
  *((0.1, 0.2, 0.5), (0.3, 0.4, 0.7), (0.5, 0.6, 0.9)),
  *((0.6, 0.8, 0.9), (0.7, 0.8, 0.9)),
)
GENERATION = (
  *((0.1, 0.8, 0.9), (0.3, 0.8, 0.9), (0.7, 0.8, 0.9), (0.1, 0.2, 0.9)),
  *((0.1, 0.5, 0.9), (0.1, 0.2, 0.3), (0.1, 0.2, 0.5)),
)


def run(config, workdir: pathlib.Path, arguments: Sequence[str], *, repeats: int = 3):
  """Trains a model on each of TRAINING. Raises ConfigError for another number of groups."""
  name, order = build.sampling_order(config, build.system(config).strategies)
  if len(order) != len(TRAINING[0]) + 1:
    raise ConfigError(f'strategies.{name}: {len(order)} groups; the intervals are for four')
  command.refuse(arguments, 'strategies')
  folders = [workdir / 'trained' / _name(cuts) for cuts in TRAINING]
  for cuts, folder in zip(TRAINING, folders, strict=True):
    study.train(folder, [*arguments, f'--config.strategies.{name}.cuts={",".join(map(str, cuts))}'])

  this = study.Study('time_intervals', workdir)
  rows = []
  for model in this.models(config, folders):
    rows.append([this.measure(model, repeats, strategy=name, cuts=cuts) for cuts in GENERATION])
  picture = this.folder / 'figure.png'
  draw(picture, statistics_of(rows)[..., 0], rows[0][0][0]['metric'])
  table, findings = summarise(rows)
  flat = [row for line in rows for group in line for row in group]
  this.publish(__doc__, table, findings, [picture], flat, model.config)


def summarise(rows: Sequence[Sequence[list[study.Row]]]) -> tuple[list[dict], list[str]]:
  """The table and the findings of rows by intervals of training and of generation."""
  statistics, metric = statistics_of(rows), rows[0][0][0]['metric']
  table = [
    {
      f'{metric}: training / generation': _name(cuts),
      **{
        _name(g): f'{mean:.4g} ± {deviation:.2g}'
        for g, (mean, deviation) in zip(GENERATION, line, strict=True)
      },
    }
    for cuts, line in zip(TRAINING, statistics, strict=True)
  ]
  i, j = np.unravel_index(statistics[..., 0].argmin(), statistics.shape[:2])
  return table, [
    f'The lowest {metric} is that of training ({_name(TRAINING[i])}) with generation '
    f'({_name(GENERATION[j])}); in the paper it is ({TABLE_2_BEST["training"]}) with '
    f'({TABLE_2_BEST["generation"]}). '
    f'{study.spread_caption(rows[0][0])} A line is a model.'
  ]


def statistics_of(rows: Sequence[Sequence[list[study.Row]]]) -> Float[np.ndarray, 'm n 2']:
  """Mean and deviation of each pair of intervals."""
  return np.array([[study.mean_and_deviation(group) for group in line] for line in rows])


def draw(file: pathlib.Path, values: np.ndarray, metric: str):
  """The heat map; dark is good."""
  figure, axes = plt.subplots(figsize=(8, 4), dpi=120, layout='constrained')
  image = axes.imshow(values, cmap='viridis')
  middle = (values.min() + values.max()) / 2
  for (i, j), value in np.ndenumerate(values):
    color = 'white' if value < middle else 'black'
    axes.text(j, i, f'{value:.3g}', ha='center', va='center', color=color, fontsize=8)
  axes.set_xticks(range(len(GENERATION)), map(_name, GENERATION), rotation=30, ha='right')
  axes.set_yticks(range(len(TRAINING)), map(_name, TRAINING))
  axes.set(xlabel='generation: t_end_4, t_end_3, t_end_2', ylabel='training')
  figure.colorbar(image, label=metric)
  figures.finish(figure, file)


def _name(cuts):
  return '-'.join(map(str, cuts))


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
