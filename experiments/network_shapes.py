"""Which network makes the best pictures after a fixed time of training on this machine.

  python -m experiments.network_shapes --config=configs/fashion.py --minutes=10

Times the training step of each network of --shapes, then trains it from --seeds training seeds on
as many images as take --minutes, in workdir/trained/; the learning rate falls to zero at the end.
A rerun keeps the speeds and the models. Each model is evaluated from --repeats sets of seeds.

  ddpmpp-C-M        C channels and the multipliers M, as in ddpmpp-32-1x2x2
  group_causal-P-W  patches of P positions a side, tokens W wide, as in group_causal-4-192
  context_unet-C-M-D-N  a context network of C and M, and a denoiser of D channels and the
                    multipliers N, as in context_unet-32-1x2x2-32-1x2

All else is the config's; configs/fashion_context.py has all of context_unet's. Minutes are of
training steps alone, without compilation. The speeds decide how long each is trained, so run it on
an idle machine.
"""

import math
import pathlib
import re
from collections.abc import Sequence

import jax
import pandas as pd

from experiments.benchmarks import throughput
from experiments.lib import command, variants
from experiments.lib.study import Study, identity
from gdm_jax import build, figures, main
from gdm_jax.evaluation.cells import Cells
from gdm_jax.runtime import console, sharding
from gdm_jax.runtime.errors import ConfigError

SHAPES = (
  'ddpmpp-32-1x2x2,ddpmpp-64-1x2x2,ddpmpp-64-1x1x1,ddpmpp-32-1x2x4,ddpmpp-32-1x4x4,'
  'group_causal-4-192'
)
STEPS = 10  # of training that are timed
COLUMNS = 16  # samples in a line
TIMED = ('data', 'basis', 'path', 'strategies', 'model', 'train', 'machine')
"""What speeds depend on."""

WIDTH_OF_HEAD = 64  # features, of attention


def run(
  config,
  workdir: pathlib.Path,
  arguments: Sequence[str],
  *,
  shapes: str = SHAPES,
  minutes: float = 10.0,
  seeds: int = 1,
  repeats: int = 2,
):
  """Times, trains and evaluates every shape. Raises ConfigError for a wrong shape or flag."""
  networks = {shape: options(shape) for shape in shapes.split(',')}
  keys = sorted({key for network in networks.values() for key in network})
  command.refuse(arguments, *keys, 'train.duration', 'train.anneal', 'seed')
  if not 0 < minutes < math.inf:
    raise ConfigError(f'--minutes={minutes} must be a positive number')
  overrides = {
    shape: [f'--config.{key}={value}' for key, value in network.items()]
    for shape, network in networks.items()
  }
  configs = {s: main.parse(['', *arguments, *keys]).config for s, keys in overrides.items()}
  systems = {shape: build.system(c) for shape, c in configs.items()}  # before minutes are spent
  columns = 'shape', 'config'
  speeds = Cells(workdir / 'speeds.csv', columns, ('images_per_second', 'device'))
  for shape, c in configs.items():
    key = dict(zip(columns, (shape, identity(c, *TIMED)), strict=True))
    row = speeds.measure(key, lambda s=shape, c=c: speed(c, systems[s]))
    images = round(60 * minutes * float(row['images_per_second']))
    overrides[shape] += [f'--config.train.{key}={images}' for key in ('duration', 'anneal')]
  folders = variants.train_all(workdir, arguments, overrides, config.seed, seeds)

  study = Study('network_shapes', workdir, judge=config.evaluation.features)
  rows, lines = [], {}
  for model in study.models(config, folders):
    rows += study.measure(model, repeats)
    shape = model.name.rpartition('-')[0]
    if shape not in lines:
      lines[shape] = [('', x) for x in model.samples(COLUMNS)]
  rows = pd.DataFrame(rows)
  picture = study.folder / 'figure.png'
  figures.sheet(picture, list(lines.items()))
  study.publish(__doc__, *summarise(rows), [picture], rows, model.config)


def options(shape: str) -> dict[str, str]:
  """The keys of the config that a shape sets, and their values. Raises ConfigError for no shape."""
  if match := re.fullmatch(r'ddpmpp-(\d+)-(\d+(?:x\d+)*)', shape):
    name, values = 'ddpmpp', {'channels': match[1], 'multipliers': match[2].replace('x', ',')}
  elif match := re.fullmatch(r'group_causal-(\d+)-(\d+)', shape):
    heads = max(1, int(match[2]) // WIDTH_OF_HEAD)
    name, values = 'group_causal', {'patch': match[1], 'width': match[2], 'heads': str(heads)}
  elif match := re.fullmatch(r'context_unet-(\d+)-(\d+(?:x\d+)*)-(\d+)-(\d+(?:x\d+)*)', shape):
    name = 'context_unet'
    keys = 'channels', 'multipliers', 'denoiser_channels', 'denoiser_multipliers'
    values = {key: part.replace('x', ',') for key, part in zip(keys, match.groups(), strict=True)}
  else:
    known = 'ddpmpp-32-1x2x2, group_causal-4-192 and context_unet-32-1x2x2-32-1x2'
    raise ConfigError(f'--shapes: {shape!r} is no shape; these are: {known}')
  return {'model.name': name, **{f'model.{name}.{key}': v for key, v in values.items()}}


def speed(config, system: build.System) -> dict:
  """How many images a second the training loop takes, without compilation."""
  console.log(f'timing {config.model.name}: {STEPS} steps')
  mesh = sharding.mesh(config.machine.fsdp)
  measured = throughput.training(config, system, build.data_source(config), mesh, STEPS)
  return {
    'images_per_second': measured['images_per_second'],
    'device': f'{mesh.size} x {jax.devices()[0].device_kind}',
  }


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  table = variants.table(rows, 'network')
  images = rows.groupby(variants.names(rows), sort=False)['trained_images'].first()
  table.insert(1, 'images trained', images.to_numpy())
  return table, [variants.ranking(rows), variants.caption(rows)]


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
