"""Fig. 10: GDM-F with its network in pixel space (Eq. 16) or in frequency space (Eq. 12).

  python -m experiments.pixel_or_frequency_space --config=configs/digits_frequency.py

Trains models of each kind from --seeds training seeds, in workdir/trained/, unless they exist, for
each of --bases. They differ in basis.name and model.space alone, and each is evaluated from
--repeats sets of seeds. The figure has samples of all from the same latents. In the paper the
network in pixel space is better; it has pictures but no numbers, and names no data set.
"""

import itertools
import pathlib
from collections.abc import Sequence

import pandas as pd

from experiments.lib import command, variants
from experiments.lib.study import Study
from gdm_jax import figures
from gdm_jax.basis import BASES
from gdm_jax.runtime.errors import ConfigError

SPACES = ('pixel', 'frequency')
COLUMNS = 8  # samples in a line


def run(
  config,
  workdir: pathlib.Path,
  arguments: Sequence[str],
  *,
  bases: str = 'blur,cosine',
  seeds: int = 3,
  repeats: int = 3,
):
  """Trains models of all kinds from several seeds. Raises ConfigError on the pixel basis."""
  command.refuse(arguments, 'basis.name', 'model.space', 'seed')
  overrides = {}
  for basis, space in itertools.product(bases.split(','), SPACES):
    if basis not in BASES or basis == 'pixel':
      raise ConfigError(f'--bases={bases}: {basis!r} is no frequency basis')
    keys = f'--config.basis.name={basis}', f'--config.model.space={space}'
    overrides[f'{basis}-{space}'] = keys
  folders = variants.train_all(workdir, arguments, overrides, config.seed, seeds)

  study = Study('pixel_or_frequency_space', workdir, judge=config.evaluation.features)
  rows, lines = [], {}
  for model in study.models(config, folders):
    rows += study.measure(model, repeats)
    kind = f'{model.config.basis.name}\n{model.config.model.space}'
    lines[kind] = lines.get(kind) or [('', x) for x in model.samples(COLUMNS)]
  rows = pd.DataFrame(rows)
  pictures = [study.folder / f'{name}.png' for name in ('figure', 'distance')]
  figures.sheet(pictures[0], list(lines.items()))
  variants.draw(pictures[1], rows)
  study.publish(__doc__, *summarise(rows), pictures, rows, model.config)


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  table, summary = variants.table(rows, 'basis'), variants.summary(rows)
  metric, kinds = rows['metric'].iloc[0], summary.index.str.split('-')
  table['basis'] = kinds.str[0]
  table.insert(1, 'network in', kinds.str[1] + ' space')
  findings = [
    f'In the {basis} basis {metric} is lower with the network in '
    f'{group["mean"].idxmin().split("-")[1]} space; in the paper that is pixel space.'
    for basis, group in summary.groupby(kinds.str[0], sort=False)
  ]
  return table, [*findings, variants.caption(rows)]


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
