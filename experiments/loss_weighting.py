"""Which loss: Eq. 8 unweighted, Eq. 7 (velocity), or Eq. 8 on the active group alone.

  python -m experiments.loss_weighting --config=configs/digits.py --config.evaluation.seeds=0-999

Trains models on each weighting from --seeds training seeds, in workdir/trained/, unless they exist.
They differ in train.weighting alone, and each is evaluated from --repeats sets of seeds. The paper
trains on Eq. 8 unweighted, and so does every other experiment here.
"""

import pathlib
from collections.abc import Sequence

import pandas as pd

from experiments.lib import command
from experiments.lib.study import (
  Study,
  distances_as_text,
  spread_caption,
  statistics,
  train_variants,
  variant,
)
from gdm_jax import figures

WEIGHTINGS = ('unweighted', 'velocity', 'active')


def run(
  config, workdir: pathlib.Path, arguments: Sequence[str], *, seeds: int = 3, repeats: int = 3
):
  """Trains models on each weighting from several seeds."""
  variants = {w: [f'--config.train.weighting={w}'] for w in WEIGHTINGS}
  command.refuse(arguments, 'train.weighting', 'seed')
  folders = train_variants(workdir, arguments, variants, config.seed, seeds)
  study, rows = Study('loss_weighting', workdir, judge=config.evaluation.features), []
  for model in study.models(config, folders):
    rows += study.measure(model, repeats)
  rows = pd.DataFrame(rows)
  picture = study.folder / 'figure.png'
  draw(picture, rows)
  study.publish(__doc__, *summarise(rows), [picture], rows, model.config)


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  rows = rows.assign(weighting=variant(rows))
  metric, summary = rows['metric'].iloc[0], statistics(rows, 'weighting')
  texts = rows.groupby('weighting', sort=False)[['distance']].apply(distances_as_text)
  table = pd.DataFrame(
    {
      'weighting': summary.index,
      metric: summary['text'].to_numpy(),
      'kernel distance': summary['kernel'].to_numpy(),
      'of': texts.to_numpy(),
    }
  )
  ranking = summary.sort_values('mean', kind='stable').index
  return table, [
    f'From low to high {metric}: {", ".join(ranking)}.',
    spread_caption(rows[rows['weighting'] == rows['weighting'].iloc[0]]),
  ]


def draw(file: pathlib.Path, rows: pd.DataFrame):
  """A bar for each weighting."""
  summary, metric = statistics(rows.assign(w=variant(rows)), 'w'), rows['metric'].iloc[0]
  figures.plot_bars(
    file, list(summary.index), list(summary['mean']), list(summary['deviation']), ylabel=metric
  )


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
