"""Fig. 10: GDM-F with its network in pixel space (Eq. 16) or in frequency space (Eq. 12).

  python -m experiments.pixel_or_frequency_space --config=configs/digits_frequency.py

Trains a model of each kind from each of --seeds training seeds, in workdir/trained/, unless it is
there, alike but for model.space, and evaluates each from --repeats sets of seeds. The figure shows
samples of both from the same latents. In the paper the network in pixel space is better; it
gives pictures, no figures.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.lib import command, report, study
from gdm_jax import build, figures
from gdm_jax.generation.generator import Generator
from gdm_jax.runtime.errors import ConfigError

SPACES = ('pixel', 'frequency')
SHOWN = 8  # samples in a line


def run(
  config, workdir: pathlib.Path, arguments: Sequence[str], *, seeds: int = 3, repeats: int = 3
):
  """Trains, measures, draws and reports. Raises ConfigError without a frequency basis."""
  if config.basis.name == 'pixel':
    raise ConfigError("basis.name = 'pixel': there is no frequency space")
  command.refuse(arguments, 'model.space', 'seed')
  folders = {
    space: [workdir / 'trained' / f'{space}-{config.seed + i}' for i in range(seeds)]
    for space in SPACES
  }
  for space, some in folders.items():
    for i, folder in enumerate(some):
      own = f'--config.model.space={space}', f'--config.seed={config.seed + i}'
      study.train(folder, [*arguments, *own])

  found = study.Study('pixel_or_frequency_space', workdir)
  rows: dict[str, list] = {space: [] for space in SPACES}
  lines = []
  for model in found.models(config, [folder for some in folders.values() for folder in some]):
    space = model.config.model.space
    rows[space] += found.measure(model, repeats)
    if not lines or lines[-1][0] != space:
      lines.append((space, [('', x) for x in samples(model)]))
  every = [row for some in rows.values() for row in some]
  metric = every[0]['metric']
  statistics = {space: study.mean_and_deviation(some) for space, some in rows.items()}
  pictures = [found.folder / f'{name}.png' for name in ('figure', 'distance')]
  figures.sheet(pictures[0], lines)
  figures.plot_bars(
    pictures[1], list(statistics), *zip(*statistics.values(), strict=True), ylabel=metric
  )
  table = [
    {
      'network in': f'{space} space',
      metric: f'{mean:.4g} ± {deviation:.2g}',
      'of': ' '.join(f'{float(row["distance"]):.4g}' for row in rows[space]),
    }
    for space, (mean, deviation) in statistics.items()
  ]
  said = [
    f'{metric} is lower with the network in '
    f'{min(SPACES, key=lambda space: statistics[space])} space; in the paper that is pixel space.',
    study.spread_caption(rows[SPACES[0]]),
  ]
  report.publish(found.folder, __doc__, table, said, pictures, every, model.config)


def samples(model: study.Model) -> np.ndarray:
  """Images of the first seeds, as `config.sampling` has them made."""
  c, seeds = model.config.sampling, np.arange(SHOWN, dtype=np.uint32)
  generator = Generator(model.system, model.config.data.shape, c.solver, model.mesh, c.guidance)
  table = build.sampling_table(model.config, model.system)
  labels = build.sampling_labels(model.config, seeds)
  return generator.sample(model.weights.params, table, seeds, labels=labels)


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
