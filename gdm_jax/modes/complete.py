"""--mode=complete: images of which some groups are given, the rest generated.

A cascade's coarse group given is super-resolution, blocks are in- and outpainting, rows extend an
image upward or downward.
"""

import pathlib
import re

import numpy as np
import tqdm
from jaxtyping import Float
from ml_collections import ConfigDict

from gdm_jax import build, figures, sampling
from gdm_jax.build import System
from gdm_jax.config import blaming, is_guided, parse_seeds
from gdm_jax.data import units
from gdm_jax.data.pictures import read_picture
from gdm_jax.generation.generator import Generator
from gdm_jax.generation.samples import check_finite
from gdm_jax.modes import common
from gdm_jax.runtime import console, sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.runtime.files import make_folder
from gdm_jax.training.workdir import load_ema


def run(config: ConfigDict, workdir: pathlib.Path):
  """Writes `complete.variants` completions of every image, variant v from the v-th seed.

  A model of labels is given none unless `sampling.labels` says which. Files are
  workdir/completed/NAME_V.png; completed.png shows, line by line, what was given, the
  whole image, and the variants. Raises ConfigError for images or known groups that do not fit.
  """
  # Check everything that can be wrong before any work.
  c, s, shape = config.complete, config.sampling, config.data.shape
  system = build.system(config)
  files = common.picture_files('complete.images', c.images)
  images = common.read('complete.images', files.values(), shape)
  config, table, groups = completion_table(config, system)
  recipe = common.recipe(config, system, config.sampling.strategy, complete=True)
  seeds = parse_seeds(config)[: c.variants]
  if len(seeds) < c.variants:
    raise ConfigError(
      f'complete.variants = {c.variants}: sampling.seeds = {s.seeds!r} has only {len(seeds)}'
    )
  if is_guided(config) and not s.labels:
    raise ConfigError(f'sampling.guidance = {s.guidance} needs sampling.labels in this mode')
  mesh = sharding.mesh()
  generator = Generator.from_config(config, system, mesh)
  params, step = load_ema(config, workdir, system, mesh)
  folder = workdir / c.folder
  make_folder(folder, f'complete.folder = {folder}')

  # Complete image after image.
  labels = build.sampling_labels(config, seeds) if s.labels else np.full(len(seeds), -1)
  z = recipe and recipe.latents(system, generator, params, table)(seeds, labels)
  tiles = []
  for name, image in zip(tqdm.tqdm(files, unit='image', disable=None), images, strict=True):
    known = np.repeat(image[None], c.variants, axis=0)
    completed = generator.sample(
      params, table, seeds, labels=labels, known=known, groups=groups, z=z
    )
    check_finite(completed, lambda v, name=name: f'variant {v} of {name}')
    tiles += [_given_part(system.process, image, groups), image, *completed]
    for v, variant in enumerate(units.to_uint8(completed)):
      figures.save(folder / f'{name}_{v}.png', variant)
  figures.save(folder / 'completed.png', figures.overview(np.stack(tiles), 96, 2 + c.variants))
  console.log(f'{len(files)} images completed by step {step:,}: see {folder}/completed.png')


def completion_table(
  config: ConfigDict, system: System
) -> tuple[ConfigDict, Float[np.ndarray, 'rows k'], tuple[int, ...]]:
  """The config, the table that generates the rest, and the refined groups that are given.

  The config names the strategy and the order: without `sampling.strategy` the first strategy in
  which the given groups can come first. Raises ConfigError that says in which order each strategy
  generates.
  """
  c, strategies, refusals = config.complete, system.strategies, []
  if bool(c.groups) == bool(c.mask):
    raise ConfigError(
      f'complete.groups = {c.groups} and complete.mask = {c.mask!r}: give one of them'
    )
  mask = _mask(config) if c.mask else None
  for name in [config.sampling.strategy] if config.sampling.strategy else strategies:
    of_strategy = config.copy_and_resolve_references()
    of_strategy.sampling.strategy = name
    try:
      build.check_sampling(of_strategy, system)
      known = _covered(mask, system, strategies[name]) if c.mask else c.groups
      _check_groups(known, strategies[name])
      _, order = build.sampling_order(of_strategy, strategies, known)
      of_strategy.sampling.order = order
      table = build.sampling_table(of_strategy, system)
      given = strategies[name].refined(known)
      _check_first(known, name, table, given)
    except ConfigError as error:
      refusals.append(str(error))
    else:
      return of_strategy, np.asarray(table), given
  raise ConfigError('; '.join(refusals))


def _check_groups(known, strategy):
  k = strategy.num_groups
  some = all(isinstance(g, int) and 0 <= g < k for g in known) and 0 < len(known) < k
  if not some or len(set(known)) < len(known):
    raise ConfigError(
      f'complete.groups = {known} must be some of the groups 0 to {k - 1}, each once, and not all '
      'of them'
    )


def _check_first(known, name, table, given):
  """Raises ConfigError if other groups are under way before the known ones are clean."""
  try:
    sampling.remaining(table, given)
  except ValueError:
    raise ConfigError(
      f'complete.groups = {known}: the intervals of strategies.{name} overlap, so others are under '
      'way before these are whole; a model for completion needs overlap = 0'
    ) from None


def _covered(mask, system, strategy):
  """The strategy's groups that a mask covers. Raises ConfigError for the first that it cuts."""
  labels = strategy.indices[np.asarray(system.process.grouping.of_elements)]
  mask = np.broadcast_to(mask[..., None], labels.shape)  # all channels of its positions
  for group in range(strategy.num_groups):
    covered, size = np.count_nonzero(mask & (labels == group)), np.count_nonzero(labels == group)
    if covered not in (0, size):
      raise ConfigError(f'complete.mask cuts group {group}: {covered} of its {size} positions')
  return tuple(int(g) for g in np.unique(labels[mask]))


def _mask(config):
  """Where the mask is white. Raises ConfigError for one that says nothing, or of another size."""
  if config.basis.name != 'pixel':
    raise ConfigError(f'complete.mask needs basis.name = pixel, not {config.basis.name!r}')
  file, (height, width) = config.complete.mask, config.data.shape[:2]
  with blaming('complete.mask', file):
    mask, changes = read_picture(pathlib.Path(file).expanduser(), (height, width, 1))
  if re.search('cropped|resized', changes):
    raise ConfigError(f"complete.mask = {file}: {changes}; must be of the images' own size")
  white = mask[..., 0] > 127
  if white.all() or not white.any():
    hint = '; it holds 0 and 1, and white is 255' if mask.max() == 1 else ''
    where = 'everywhere' if white.all() else 'nowhere'
    raise ConfigError(f'complete.mask = {file} is white {where}{hint}')
  return white


def _given_part(process, image, groups):
  """The given part of an image: its known pixels, or what its known coefficients make."""
  if process.basis.is_pixel:
    return figures.faded(image, np.isin(process.grouping.of_elements, groups))
  return np.asarray(sampling.given(process, image[None], groups, 0 * image[None]))[0]
