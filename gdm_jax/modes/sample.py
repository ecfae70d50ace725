"""--mode=sample: images from a trained model, one seed each."""

import pathlib

import jax
import numpy as np
import tqdm
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from gdm_jax import build, figures, generate, sharding
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
  seeds = build.seeds(config)
  mesh = sharding.mesh()
  params, step = trained(config, workdir, system, mesh)
  generator = generate.Generator(system, shape, c.solver, mesh, c.guidance)

  kind = {key: c[key] for key in c if key not in ('seeds', 'batch', 'folder')}
  single_file = c.format == 'npz' or not figures.is_image(shape)
  folder = Folder(workdir / c.folder, {**kind, 'checkpoint': step}, single_file)
  missing = multihost_utils.broadcast_one_to_all(folder.missing(seeds))  # all must agree
  wanted, steps = seeds[missing], len(table) - 1
  batch = min(c.batch, max(len(wanted), 1))
  if len(wanted) < len(seeds):
    say(f'{len(seeds) - len(wanted):,} of {len(seeds):,} samples are there already')

  with tqdm.tqdm(total=len(wanted), unit=' samples', unit_scale=True, disable=None) as bar:
    for some in np.split(wanted, range(batch, len(wanted), batch)) if len(wanted) else ():
      full = np.resize(some, batch)  # the last batch too, so that one program serves all
      states = generator.states(params, table, full, build.labels(config, full))
      pieces = len(generate.pieces(table))
      x = next(states)  # the latents
      for x in states:  # noqa: B007 (the last one is the data)
        bar.update(len(some) / pieces)
      folder.write(some, x[: len(some)])
  multihost_utils.sync_global_devices('samples')
  first = folder.finish(seeds[: config.log.grid**2])
  if jax.process_index() == 0:
    figures.save(folder.path / 'grid.png', figures.overview(first))
  say(f'{len(seeds):,} samples of step {step:,} with {c.solver}, {steps} steps: see {folder.path}')
