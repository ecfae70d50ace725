"""--mode=export: a trained model as a folder that anyone can load (docs/share.md)."""

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from gdm_jax import build, figures
from gdm_jax.config import parse_seeds
from gdm_jax.data import label_map
from gdm_jax.generation import program
from gdm_jax.generation.generator import Generator
from gdm_jax.generation.samples import check_finite
from gdm_jax.models import naming
from gdm_jax.modes import card
from gdm_jax.runtime import console, distributed, exported, sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training.workdir import contents_of, load_ema, versions

PRIVATE = {
  **{'machine.compilation_cache': 'auto', 'machine.data_dir': ''},
  **{'checkpoint.load': 0, 'checkpoint.model': '', 'export.folder': 'export'},
  **{'sampling.latents': '', 'sampling.ranks': ''},
}
"""Keys that say where things lie on this machine, or which single picture is sampled, and what
others have in their place."""


def run(config: ConfigDict, workdir: pathlib.Path):
  """Writes `export.folder`, in the workdir unless it is absolute; an export there is replaced.

  What `config.sampling` says becomes the model's own way to sample. Raises ConfigError for a folder
  of something else, and for a program that cannot be written, and DivergedError.
  """
  # Check everything that can be wrong before any work.
  c, folder = config.export, workdir / config.export.folder
  system = build.system(config)
  table, solver = build.sampling_table(config, system), build.solver(config)
  _check_program(config)
  mesh = sharding.mesh()
  generator = Generator.from_config(config, system, mesh)
  params, step = load_ema(config, workdir, system, mesh)
  contents = contents_of(config, workdir)
  rounded = jax.tree.map(lambda x: x.astype(jnp.dtype(c.dtype)).astype(x.dtype), params)
  exported.prepare(folder, f'export.folder = {folder}')

  # All processes draw the samples.
  sheet = None
  if c.grid:
    seeds = parse_seeds(config)[: c.grid**2]
    labels = build.sampling_labels(config, seeds)
    batches = generator.sample_batches(rounded, table, seeds, labels, config.sampling.batch)
    x = np.concatenate([generator.to_host(x, len(batch)) for batch, x in batches])
    check_finite(x, lambda i: f'the sample of seed {seeds[i]}')
    sheet = figures.overview(x, columns=min(c.grid, len(seeds)))

  # One writes, and then replaces what is there.
  if distributed.is_primary():
    network = config.model.name
    tensors = naming.to_names(network, jax.tree.map(np.asarray, params))
    about = {
      'step': step,
      'trained_images': step * config.train.batch,
      'contents': contents and contents._asdict(),
      'versions': versions(),
    }
    text = card.text(config, system, params, about, workdir, folder)
    with exported.replacing(folder) as new:
      exported.write_tensors(new / exported.PARAMETERS, tensors, c.dtype, network=network)
      _write_config(config, about, new)
      if sheet is not None:
        figures.save(new / exported.SHEET, sheet)
      if c.program:
        _write_program(config, solver, new)
      (new / exported.CARD).write_text(text)
  multihost_utils.sync_global_devices('export')
  size = sum(file.stat().st_size for file in folder.iterdir())
  console.log(f'step {step:,} in {size / 2**20:.1f} MiB: gdm_jax.load({str(folder)!r}) takes it')


def _check_program(config):
  if not config.export.program:
    return
  if importlib.util.find_spec('flatbuffers') is None:
    raise ConfigError(
      'export.program = True needs flatbuffers: pip install flatbuffers, or '
      '--config.export.program=False'
    )
  if config.sampling.solver == 'adaptive':
    raise ConfigError(
      "sampling.solver = 'adaptive' is no part of a program; take another, or "
      '--config.export.program=False'
    )


def _write_config(config, about, folder):
  """config.json; the label maps that it names are copied beside it."""
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(PRIVATE)
  for i, strategy in enumerate(config.strategies.values()):
    if strategy.grouping.startswith('file:'):
      file = folder / f'labels_{i}.npz'
      np.savez(file, labels=label_map.read(strategy.grouping.removeprefix('file:')))
      strategy.grouping = f'file:{file.name}'
  tree = {**json.loads(config.to_json()), exported.ABOUT: about}
  (folder / exported.CONFIG).write_text(f'{json.dumps(tree, indent=2)}\n')


def _write_program(config, solver, folder):
  """The sampler with direct convolutions: those of this machine's CPU are for no other."""
  direct = config.copy_and_resolve_references()
  direct.machine.convolutions = 'direct'
  system = build.system(direct)
  content = program.export_sampler(
    system,
    config.model.name,
    tuple(config.data.shape),
    solver,
    build.sampling_guidance(config, system),
    config.export.dtype,
  )
  (folder / exported.PROGRAM).write_bytes(content)
