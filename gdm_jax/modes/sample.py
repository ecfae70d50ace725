"""--mode=sample: images from a trained model, one seed each."""

import pathlib

from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from gdm_jax import build, figures
from gdm_jax.config import parse_seeds
from gdm_jax.generation.generator import Generator
from gdm_jax.generation.samples import Folder
from gdm_jax.runtime import console, distributed, sharding
from gdm_jax.training.checkpoint import trained


def run(config: ConfigDict, workdir: pathlib.Path):
  """Writes an example for every one of `sampling.seeds` to workdir/samples, and grid.png.

  Seeds that have theirs are left out, so a run that was stopped goes on. Raises ConfigError where
  the workdir holds no checkpoint of this config, or the folder samples of another kind.
  """
  c, shape = config.sampling, config.data.shape
  system = build.system(config)
  table = build.sampling_table(config, system.strategies)
  seeds = parse_seeds(config)
  mesh = sharding.mesh()
  params, step = trained(config, workdir, system, mesh)
  generator = Generator(system, shape, c.solver, mesh, c.guidance)

  kind = {key: c[key] for key in c if key not in ('seeds', 'batch', 'folder')}
  single_file = c.format == 'npz' or not figures.is_image(shape)
  folder = Folder(workdir / c.folder, {**kind, 'checkpoint': step}, single_file)
  missing = multihost_utils.broadcast_one_to_all(folder.missing(seeds))  # all must agree
  wanted, steps = seeds[missing], len(table) - 1
  if len(wanted) < len(seeds):
    console.log(f'{len(seeds) - len(wanted):,} of {len(seeds):,} samples are there already')

  labels = build.sampling_labels(config, wanted)
  for some, x in generator.sample_batches(params, table, wanted, labels, c.batch):
    folder.write(some, generator.to_host(x, len(some)))
  multihost_utils.sync_global_devices('samples')
  first = folder.finish(seeds[: config.log.grid**2])
  if distributed.is_primary():
    figures.save(folder.path / 'grid.png', figures.overview(first))
  console.log(
    f'{len(seeds):,} samples of step {step:,} with {c.solver}, {steps} steps: see {folder.path}'
  )
