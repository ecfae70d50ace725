"""Fig. 10: GDM-F with its network in pixel space (Eq. 16) or in frequency space (Eq. 12).

  python -m experiments.pixel_or_frequency_space --config=configs/digits_frequency.py

Trains models of each kind from --seeds training seeds, in workdir/trained/, unless they exist. They
differ in model.space alone, and each is evaluated from --repeats sets of seeds. The figure has
samples of both from the same latents. In the paper the network in pixel space is better; it has
pictures but no numbers.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from experiments.lib import command
from experiments.lib.study import (
  Model,
  Study,
  distances_as_text,
  spread_caption,
  statistics,
  train,
)
from gdm_jax import build, figures
from gdm_jax.generation.generator import Generator
from gdm_jax.runtime.errors import ConfigError

SPACES = ('pixel', 'frequency')
COLUMNS = 8  # samples in a line


def run(
  config, workdir: pathlib.Path, arguments: Sequence[str], *, seeds: int = 3, repeats: int = 3
):
  """Trains models of both kinds from several seeds. Raises ConfigError on the pixel basis."""
  if config.basis.name == 'pixel':
    raise ConfigError("basis.name = 'pixel': there is no frequency space")
  command.refuse(arguments, 'model.space', 'seed')
  folders = []
  for space in SPACES:
    for seed in range(config.seed, config.seed + seeds):
      folders.append(workdir / 'trained' / f'{space}-{seed}')
      overrides = f'--config.model.space={space}', f'--config.seed={seed}'
      train(folders[-1], [*arguments, *overrides])

  study = Study('pixel_or_frequency_space', workdir)
  rows, lines = [], {}
  for model in study.models(config, folders):
    rows += study.measure(model, repeats)
    space = model.config.model.space
    lines[space] = lines.get(space) or [('', x) for x in samples(model)]
  rows = pd.DataFrame(rows)
  pictures = [study.folder / f'{name}.png' for name in ('figure', 'distance')]
  figures.sheet(pictures[0], list(lines.items()))
  draw(pictures[1], rows)
  study.publish(__doc__, *summarise(rows), pictures, rows, model.config)


def by_space(rows: pd.DataFrame) -> pd.DataFrame:
  """The rows with the column `space`: models are named after it and their seed."""
  return rows.assign(space=rows['model'].str.rpartition('-')[0])


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  rows = by_space(rows)
  metric, summary = rows['metric'].iloc[0], statistics(rows, 'space')
  texts = rows.groupby('space', sort=False)[['distance']].apply(distances_as_text)
  table = pd.DataFrame(
    {
      'network in': summary.index + ' space',
      metric: summary['text'].to_numpy(),
      'of': texts.to_numpy(),
    }
  )
  return table, [
    f'{metric} is lower with the network in '
    f'{summary["mean"].idxmin()} space; in the paper that is pixel space.',
    spread_caption(rows[rows['space'] == SPACES[0]]),
  ]


def draw(file: pathlib.Path, rows: pd.DataFrame):
  """A bar for each space."""
  summary, metric = statistics(by_space(rows), 'space'), rows['metric'].iloc[0]
  figures.plot_bars(
    file, list(summary.index), list(summary['mean']), list(summary['deviation']), ylabel=metric
  )


def samples(model: Model) -> np.ndarray:
  """Images of the first seeds, generated as `config.sampling` says."""
  c, seeds = model.config.sampling, np.arange(COLUMNS, dtype=np.uint32)
  solver = build.solver(model.config)
  generator = Generator(model.system, model.config.data.shape, solver, model.mesh, c.guidance)
  table = build.sampling_table(model.config, model.system)
  labels = build.sampling_labels(model.config, seeds)
  return generator.sample(model.checkpoint.params, table, seeds, labels=labels)


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
