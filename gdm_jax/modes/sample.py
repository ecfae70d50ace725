"""--mode=sample: images from a trained model, one seed each."""

import pathlib

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from gdm_jax import build, figures, generate, sharding
from gdm_jax.config import seeds_of
from gdm_jax.modes.folder import Folder
from gdm_jax.training.checkpoint import trained
from gdm_jax.training.logger import say


def run(config: ConfigDict, workdir: pathlib.Path):
  """Writes an example for every one of `sampling.seeds` to workdir/samples, and grid.png.

  Seeds that have theirs are left out, so a run that was stopped goes on. Raises ConfigError where
  the workdir holds no checkpoint of this config, or the folder samples of another kind.
  """
  c, shape = config.sampling, config.data.shape
  system = build.system(config)
  table = build.generation(config, system.strategies)
  seeds = seeds_of(config)
  mesh = sharding.mesh()
  params, step = trained(config, workdir, system, mesh)
  generator = generate.Generator(system, shape, c.solver, mesh, c.guidance)

  kind = {key: c[key] for key in c if key not in ('seeds', 'batch', 'folder')}
  single_file = c.format == 'npz' or not figures.is_image(shape)
  folder = Folder(workdir / c.folder, {**kind, 'checkpoint': step}, single_file)
  missing = multihost_utils.broadcast_one_to_all(folder.missing(seeds))  # all must agree
  wanted, steps = seeds[missing], len(table) - 1
  if len(wanted) < len(seeds):
    say(f'{len(seeds) - len(wanted):,} of {len(seeds):,} samples are there already')

  labels = build.labels(config, wanted)
  for some, x in generator.stream(params, table, wanted, labels, c.batch):
    folder.write(some, generator.gather(x, len(some)))
  multihost_utils.sync_global_devices('samples')
  first = folder.finish(seeds[: config.log.grid**2])
  if jax.process_index() == 0:
    figures.save(folder.path / 'grid.png', figures.overview(first))
  say(f'{len(seeds):,} samples of step {step:,} with {c.solver}, {steps} steps: see {folder.path}')
