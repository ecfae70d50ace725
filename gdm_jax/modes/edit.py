"""--mode=edit: one's own pictures, encoded, changed band by band, and decoded (Section 4.5)."""

import pathlib
import re

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from gdm_jax import build, figures, latents, sampling
from gdm_jax.build import System
from gdm_jax.config import blaming, parse_seeds
from gdm_jax.data import units
from gdm_jax.data.folder import read_picture
from gdm_jax.data.units import from_uint8
from gdm_jax.generation import editing
from gdm_jax.generation.generator import Generator
from gdm_jax.modes import common
from gdm_jax.runtime import console, distributed, sharding
from gdm_jax.runtime.errors import ConfigError, DivergedError
from gdm_jax.training.checkpoint import trained

LEVEL = 2 / 255  # a level of 0..255, in the units of data in [-1, 1]


def run(config: ConfigDict, workdir: pathlib.Path):
  """Writes every edited picture to workdir/edited, and sheet.png with all of them and captions.

  Tells what was done to pictures of other sizes, and how exactly each comes back when nothing is
  changed. Raises ConfigError, and DivergedError where pictures come back that are not finite.
  """
  c, shape = config.edit, config.data.shape
  system = build.system(config)
  table = build.sampling_table(config, system.strategies)
  chosen = masks(config, system)
  files = common.pictures('edit.images', c.images)
  names, x = [file.stem for file in files], read(files, shape)
  if 'sheet' in names:
    raise ConfigError(f'edit.images = {c.images!r}: a picture named sheet; the contact sheet is')
  lines(config, system, x, names, chosen)  # so that what is wrong is said before any work
  mesh = sharding.mesh()
  params, step = trained(config, workdir, system, mesh)
  folder = workdir / c.folder
  common.make_workdir(folder)

  with blaming('edit.solver', c.solver):
    generator = Generator(system, shape, c.solver, mesh)
  batch = config.sampling.batch
  z = generator.encode(params, table, x, batch)
  again = generator.decode(params, table, z, batch)
  edits = lines(config, system, z, names, chosen)
  pictures = editing.decoded(edits, lambda z: generator.decode(params, table, z, batch))
  originals = ('', list(zip(names, x, strict=True)))
  returned = (f'{c.solver}\n{len(table) - 1} steps', list(zip(names, again, strict=True)))
  shown = [originals, returned] if c.operation == 'reconstruct' else pictures

  report(names, x, again, c.solver)
  if distributed.is_primary():
    for name, image in returned[1]:
      figures.save(folder / f'{name}.png', units.to_uint8(image))
    for caption, images in pictures:
      for name, image in images:
        figures.save(folder / f'{_slug(caption)}-{_slug(name)}.png', units.to_uint8(image))
    figures.sheet(folder / 'sheet.png', shown)
  console.log(
    f'{sum(len(images) for _, images in shown)} pictures by step {step:,}: see {folder}/sheet.png'
  )


def read(files: list[pathlib.Path], shape: tuple[int, int, int]) -> Float[np.ndarray, 'n h w c']:
  """Pictures in the model's size and units. Raises ConfigError for one that cannot be read."""
  if not figures.is_image(shape):
    raise ConfigError(f'edit.images: data.shape = {shape} is no picture')
  found = []
  for file in files:
    with blaming('edit.images', file):
      image, done = read_picture(file, shape)
    found.append(image)
    if done:
      console.log(f'{file}: {done}')
  return np.asarray(from_uint8(np.stack(found)))


def masks(config: ConfigDict, system: System) -> dict[str, latents.Mask]:
  """What is edited: `edit.groups` together, `edit.band`, or each group of the strategy in turn."""
  c = config.edit
  if c.groups and c.band:
    raise ConfigError(f'edit.groups = {c.groups} and edit.band = {c.band}: give one of them')
  if c.band:
    with blaming('edit.band', c.band):
      first, last = c.band
      return {f'[{first}, {last - 1}]': latents.band(system.process.basis, first, last)}
  found = editing.masks(system, build.sampling_order(config, system.strategies)[0])
  names = list(found)
  if not all(isinstance(group, int) and 0 <= group < len(names) for group in c.groups):
    raise ConfigError(f'edit.groups = {c.groups}: the groups are 0 to {len(names) - 1}')
  if c.groups:
    some = {names[group]: found[names[group]] for group in c.groups}
    return {' '.join(some): editing.together(some.values())}
  return found


def lines(config, system, z, names, chosen) -> list[editing.Line]:
  """The lines of `edit.operation`, not yet decoded. Raises ConfigError."""
  c, basis, found = config.edit, system.process.basis, []
  with blaming(f'edit.operation = {c.operation!r}, edit.images', names):
    match c.operation:
      case 'reconstruct':
        return []
      case 'mix':
        found = editing.mix(basis, z, names, chosen)
      case 'interpolate':
        found = editing.interpolate(basis, z, names, chosen, c.weights, c.spherical)
      case 'traverse':
        found = editing.traverse(basis, z, names, c.ranks, c.channel, c.strengths)
      case 'vary':
        seeds = parse_seeds(config)[: c.variants]
        if len(seeds) < c.variants:
          raise ValueError(f'edit.variants = {c.variants} needs as many of sampling.seeds')
        kept = chosen if c.groups or c.band else editing.lowest(chosen)
        noise = sampling.latents(seeds, tuple(config.data.shape))
        found = editing.vary(basis, z, names, kept, np.asarray(noise))
    if not found or not all(line.pictures for line in found):
      raise ValueError('there is nothing to vary, or no strength, weight or rank to vary it by')
  return found


def report(names, x, again, solver):
  """Says how far each picture is from what its latent decodes to. Raises DivergedError."""
  errors = np.abs(again - x).reshape(len(x), -1).max(1) / LEVEL
  if not np.isfinite(errors).all():
    raise DivergedError(
      f'{names[int(np.argmin(np.isfinite(errors)))]} did not come back finite from {solver}: the '
      'model or the solver diverged'
    )
  for name, error in zip(names, errors, strict=True):
    console.log(f'{name}: reconstructed to {error:.2g} levels of 255 at most')
  if errors.max() > 1:
    other = '' if solver == 'reversible_heun' else ', or edit.solver = reversible_heun'
    console.log(f'that is visible: take more --config.sampling.steps{other}')


def _slug(text):
  return re.sub(r'[^\w.+-]+', '_', text).strip('_')
