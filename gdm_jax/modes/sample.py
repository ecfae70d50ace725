"""--mode=sample: images from a trained model, one seed each."""

import pathlib

import jax
import numpy as np
import tqdm
from ml_collections import ConfigDict

from gdm_jax import build, figures, generate, sharding
from gdm_jax.build import ConfigError
from gdm_jax.modes import common
from gdm_jax.training.checkpoint import Checkpoints, check_unchanged
from gdm_jax.training.logger import say


def run(config: ConfigDict, workdir: pathlib.Path):
  """Writes `sampling.num` examples to workdir/samples, image i from seed `sampling.seed` + i.

  PNG files for images, one samples.npz for other data, and grid.png with the first of them.
  Raises ConfigError where the workdir holds no checkpoint of this config.
  """
  system = build.system(config)
  table = build.generation(config, system.strategies)
  check_unchanged(config, workdir, generating=True)
  folder = workdir / 'samples'
  if not (workdir / 'checkpoints').is_dir():
    raise ConfigError(f'--workdir={workdir} holds no checkpoint; train first')

  mesh = sharding.mesh()
  layout = sharding.everywhere(mesh)
  target = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout),
    jax.eval_shape(system.init, jax.random.key(0)),
  )
  with Checkpoints(workdir) as checkpoints:
    if checkpoints.latest() is None:
      raise ConfigError(f'--workdir={workdir} holds no checkpoint; train first')
    params, step = checkpoints.restore_ema(target), checkpoints.latest()
  common.make_workdir(folder)

  c = config.sampling
  generator = generate.Generator(system, config.data.shape, c.solver, mesh)
  seeds = c.seed + np.arange(c.num)
  batch = min(c.batch, c.num)
  primary = jax.process_index() == 0
  made = []
  steps = len(table) - 1
  with tqdm.tqdm(total=c.num * steps, unit='evaluations', disable=None) as bar:
    for some in np.split(seeds, range(batch, c.num, batch)):
      full = np.resize(some, batch)  # the last batch too, so that one program serves all
      pieces = len(generate.pieces(table))
      states = generator.states(params, table, full)
      x = next(states)  # the latents
      for x in states:  # noqa: B007 (the last one is the data)
        bar.update(len(some) * steps // pieces)
      made.append(x[: len(some)])
      if primary and figures.is_image(config.data.shape):
        for seed, image in zip(some, figures.to_uint8(made[-1]), strict=True):
          figures.save(folder / f'{seed:06d}.png', image)
  if primary:
    first = np.concatenate(made)[: config.log.grid**2]
    figures.save(folder / 'grid.png', figures.overview(first))
    if not figures.is_image(config.data.shape):
      np.savez(folder / 'samples.npz', x=np.concatenate(made), seeds=seeds)
  say(f'{c.num} samples of step {step:,} with {c.solver}, {steps} steps: see {folder}')
