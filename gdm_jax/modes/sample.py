"""--mode=sample: images from a trained model, one seed each."""

import pathlib
import zlib

from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from gdm_jax import build, figures
from gdm_jax.config import parse_seeds
from gdm_jax.generation.generator import Generator
from gdm_jax.generation.samples import SampleFolder, check_finite
from gdm_jax.modes import common
from gdm_jax.runtime import console, exported, sharding
from gdm_jax.training.workdir import load_ema

NOT_SETTINGS = ('seeds', 'batch', 'folder', 'cache')
"""Keys of `config.sampling` that samples do not depend on."""


def run(config: ConfigDict, workdir: pathlib.Path):
  """Writes an example for every one of `sampling.seeds` to workdir/samples, and grid.png.

  Existing samples are skipped, so a run that was stopped resumes. Raises ConfigError if the workdir
  holds no checkpoint of this config, or the folder samples with other settings.
  """
  c, shape = config.sampling, config.data.shape
  system = build.system(config)
  table = build.sampling_table(config, system)
  solver = build.solver(config)
  seeds = parse_seeds(config)
  recipe = common.recipe(config, system, build.sampling_order(config, system.strategies)[0])
  mesh = sharding.mesh()
  generator = Generator.from_config(config, system, mesh)
  params, step = load_ema(config, workdir, system, mesh)

  settings = {key: c[key] for key in c if key not in (*NOT_SETTINGS, 'adaptive')}
  # Folders of before these keys have none of them.
  newer = exported.NEWER['sampling'].items()
  settings = {key: value for key, value in settings.items() if (key, value) not in newer}
  settings |= {'solver': solver.name, 'checkpoint': step}
  if recipe and recipe.given:
    settings['pictures'] = {file: zlib.crc32(x.tobytes()) for file, x in recipe.given.items()}
  if config.checkpoint.model:
    settings['model'] = exported.open_model(config.checkpoint.model, 'checkpoint.model').digest()
  single_file = c.format == 'npz' or not figures.is_image(shape)
  path = workdir / c.folder
  folder = SampleFolder(path, settings, single_file, f'sampling.folder = {path}')
  missing = multihost_utils.broadcast_one_to_all(folder.missing(seeds))  # all must agree
  wanted, steps = seeds[missing], len(table) - 1
  if len(wanted) < len(seeds):
    console.log(f'{len(seeds) - len(wanted):,} of {len(seeds):,} samples exist already')

  labels = build.sampling_labels(config, wanted)
  latents = recipe and recipe.latents(system, generator, params, table)
  batches = generator.sample_batches(params, table, wanted, labels, c.batch, latents=latents)
  for batch, x in batches:
    x = generator.to_host(x, len(batch))
    check_finite(x, lambda i, batch=batch: f'the sample of seed {batch[i]}')
    folder.write(batch, build.sampling_labels(config, batch), x)
  multihost_utils.sync_global_devices('samples')
  first = folder.finish(seeds[: config.log.grid**2])
  figures.save(folder.path / 'grid.png', figures.overview(first))
  console.log(
    f'{len(seeds):,} samples of step {step:,} with {c.solver}, {steps} steps: see {folder.path}'
  )
