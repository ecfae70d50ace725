"""--mode=edit: your own pictures, encoded, changed band by band, and decoded (Section 4.5)."""

import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from gdm_jax import build, figures, latents, sampling
from gdm_jax.build import System
from gdm_jax.config import blaming, parse_seeds
from gdm_jax.data.units import LEVEL, to_uint8
from gdm_jax.generation import editing
from gdm_jax.generation.generator import Generator
from gdm_jax.generation.samples import check_finite
from gdm_jax.modes import common
from gdm_jax.runtime import console, sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.runtime.files import make_folder
from gdm_jax.training.workdir import load_ema


def run(config: ConfigDict, workdir: pathlib.Path):
  """Writes every edited picture to workdir/edited, and sheet.png with all of them and captions.

  Prints what was done to pictures of other sizes, and how exactly each is reconstructed when
  nothing is changed. Raises ConfigError, and DivergedError if pictures are not finite.
  """
  # Check everything that can be wrong before any work.
  c, shape = config.edit, config.data.shape
  system = build.system(config)
  table = build.sampling_table(config, system)
  files = common.picture_files('edit.images', c.images)
  names, x = list(files), common.read('edit.images', files.values(), shape)
  edited = check(config, system, x, names)
  mesh = sharding.mesh()
  params, step = load_ema(config, workdir, system, mesh)
  folder = workdir / c.folder
  make_folder(folder, f'edit.folder = {folder}')

  # Encode, reconstruct, edit and decode.
  solver = build.solver(config, 'edit.solver')
  generator = Generator(system, shape, solver, mesh, cache=config.sampling.cache)
  batch = config.sampling.batch
  z = generator.encode(params, table, x, batch, label=c.encode_label)

  def decode(z):
    return generator.decode(params, table, z, batch, label=c.decode_label)

  reconstructed = decode(z)
  check_finite(reconstructed, lambda i: f'{names[i]}, reconstructed by {c.solver}')
  edits = lines(config, system, z, names, edited)
  pictures = editing.decoded(edits, decode)

  # Write each picture, and the sheet.
  if c.encode_label == c.decode_label:
    report(names, x, reconstructed, c.solver)
  for name, image in zip(names, reconstructed, strict=True):
    figures.save(folder / f'{name}.png', to_uint8(image))
  for caption, images in pictures:
    found = np.stack([image for _, image in images])
    check_finite(found, lambda i, caption=caption, images=images: f'{images[i][0]} of {caption}')
    for name, image in images:
      name = f'{common.file_name(caption)}-{common.file_name(name)}.png'
      figures.save(folder / name, to_uint8(image))
  if c.operation == 'reconstruct':
    caption = f'{c.solver}\n{len(table) - 1} steps'
    pictures = [
      (caption, list(zip(names, images, strict=True)))
      for caption, images in (('', x), (caption, reconstructed))
    ]
  figures.sheet(folder / 'sheet.png', pictures)
  count = sum(len(images) for _, images in pictures)
  console.log(f'{count} pictures by step {step:,}: see {folder}/sheet.png')


def check(
  config: ConfigDict, system: System, x: Float[np.ndarray, 'n h w c'], names: Sequence[str]
) -> dict[str, latents.Mask]:
  """What is edited (`masks`). Raises ConfigError for labels, or an operation, that do not fit."""
  edited, classes = masks(config, system), config.model.classes
  lines(config, system, x, names, edited)
  for key in ('encode_label', 'decode_label'):
    if not -1 <= (label := config.edit[key]) < classes:
      raise ConfigError(f'edit.{key} = {label}: must be -1, no label, or below {classes} classes')
  return edited


def masks(config: ConfigDict, system: System) -> dict[str, latents.Mask]:
  """What is edited: `edit.groups` together, `edit.band`, or each group of the strategy in turn."""
  c = config.edit
  if c.groups and c.band:
    raise ConfigError(f'edit.groups = {c.groups} and edit.band = {c.band}: give one of them')
  if c.band:
    with blaming('edit.band', c.band):
      first, last = c.band
      return {f'[{first}, {last - 1}]': latents.band(system.process.basis, first, last)}
  groups = editing.masks(system, build.sampling_order(config, system.strategies)[0])
  names = list(groups)
  if not all(isinstance(group, int) and 0 <= group < len(names) for group in c.groups):
    raise ConfigError(f'edit.groups = {c.groups}: the groups are 0 to {len(names) - 1}')
  if c.groups:
    selected = {names[group]: groups[names[group]] for group in c.groups}
    return {' '.join(selected): editing.union(selected.values())}
  return groups


def lines(config, system, z, names, edited) -> list[editing.Line]:
  """The lines of `edit.operation`, not yet decoded. Raises ConfigError."""
  c = config.edit
  if c.operation not in editing.OPERATIONS:
    valid = ', '.join(editing.OPERATIONS)
    raise ConfigError(f'edit.operation = {c.operation!r}: there are {valid}')

  def draw_noise():
    seeds = parse_seeds(config)[: c.variants]
    if len(seeds) < c.variants:
      raise ValueError(f'edit.variants = {c.variants} needs as many of sampling.seeds')
    return np.asarray(sampling.latents(seeds, tuple(config.data.shape)))

  with blaming(f'edit.operation = {c.operation!r}, edit.images', names):
    encoded = editing.Encoded(system.process.basis, z, names, edited, draw_noise)
    edits = editing.OPERATIONS[c.operation](encoded, c)
    if c.operation != 'reconstruct' and not (edits and all(line.pictures for line in edits)):
      raise ValueError('there is nothing to vary, or no strength, weight or rank to vary it by')
  return edits


def report(names, x, reconstructed, solver):
  """Prints how far each picture is from its reconstruction."""
  errors = np.abs(reconstructed - x).reshape(len(x), -1).max(1) / LEVEL
  for name, error in zip(names, errors, strict=True):
    console.log(f'{name}: reconstructed to {error:.2g} levels of 255 at most')
  if errors.max() > 1:
    better = '' if solver == 'reversible_heun' else ', or edit.solver = reversible_heun'
    console.log(f'that is visible: take more --config.sampling.steps{better}')
