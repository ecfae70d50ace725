"""Fig. 10: GDM-F with its network in pixel space (Eq. 16) or in frequency space (Eq. 12).

  python -m experiments.pixel_or_frequency_space --config=configs/digits_frequency.py

Trains a model of each kind from each of --seeds training seeds, in workdir/trained/, unless it is
there, alike but for model.space, and evaluates each from --repeats sets of seeds. The figure shows
samples of both from the same latents. In the paper the network in pixel space is better; it
gives pictures, no figures.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.lib import command, study
from gdm_jax import build, figures
from gdm_jax.generation.generator import Generator
from gdm_jax.runtime.errors import ConfigError

SPACES = ('pixel', 'frequency')
SHOWN = 8  # samples in a line


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
      study.train(folders[-1], [*arguments, *overrides])

  this = study.Study('pixel_or_frequency_space', workdir)
  rows: dict[str, list[study.Row]] = {space: [] for space in SPACES}
  lines = {}
  for model in this.models(config, folders):
    space = model.config.model.space
    rows[space] += this.measure(model, repeats)
    if space not in lines:
      lines[space] = [('', x) for x in samples(model)]
  pictures = [this.folder / f'{name}.png' for name in ('figure', 'distance')]
  figures.sheet(pictures[0], list(lines.items()))
  draw(pictures[1], rows)
  table, findings = summarise(rows)
  this.publish(
    __doc__,
    table,
    findings,
    pictures,
    [row for group in rows.values() for row in group],
    model.config,
  )


def summarise(rows: Mapping[str, list[study.Row]]) -> tuple[list[dict], list[str]]:
  """The table and the findings of rows by space."""
  metric = rows[SPACES[0]][0]['metric']
  statistics = {space: study.mean_and_deviation(group) for space, group in rows.items()}
  table = [
    {
      'network in': f'{space} space',
      metric: f'{mean:.4g} ± {deviation:.2g}',
      'of': ' '.join(f'{float(row["distance"]):.4g}' for row in rows[space]),
    }
    for space, (mean, deviation) in statistics.items()
  ]
  return table, [
    f'{metric} is lower with the network in '
    f'{min(SPACES, key=lambda space: statistics[space])} space; in the paper that is pixel space.',
    study.spread_caption(rows[SPACES[0]]),
  ]


def draw(file: pathlib.Path, rows: Mapping[str, list[study.Row]]):
  """A bar for each space."""
  means, deviations = zip(*map(study.mean_and_deviation, rows.values()), strict=True)
  figures.plot_bars(file, list(rows), means, deviations, ylabel=rows[SPACES[0]][0]['metric'])


def samples(model: study.Model) -> np.ndarray:
  """Images of the first seeds, as `config.sampling` has them made."""
  c, seeds = model.config.sampling, np.arange(SHOWN, dtype=np.uint32)
  solver = build.solver(model.config)
  generator = Generator(model.system, model.config.data.shape, solver, model.mesh, c.guidance)
  table = build.sampling_table(model.config, model.system)
  labels = build.sampling_labels(model.config, seeds)
  return generator.sample(model.checkpoint.params, table, seeds, labels=labels)


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
