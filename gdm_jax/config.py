"""What a valid config is: errors by key, ranges, choices, and the seeds that a range names.

The sections of a config are of two kinds: MODEL and RUN say what is trained, and the others what is
asked of it and on which machine.
"""

import contextlib
import re
from collections.abc import Iterator

import numpy as np
from jaxtyping import Integer
from ml_collections import ConfigDict

from gdm_jax import losses, path
from gdm_jax.models.ddpmpp import REMAT
from gdm_jax.runtime.errors import ConfigError

MODEL = ('basis', 'path', 'strategies', 'model')
"""The sections that say what the parameters mean."""

RUN = ('seed', 'data', 'train')
"""The sections that say how they came about. All others may differ between commands."""

POSITIVE = (
  *('train.batch', 'train.duration', 'train.learning_rate', 'train.ema_halflife'),
  *('checkpoint.every', 'checkpoint.keep', 'log.every', 'log.samples_every', 'log.grid'),
  *('sampling.batch', 'complete.variants', 'edit.variants', 'likelihood.num'),
  *('sampling.adaptive.rtol', 'sampling.adaptive.atol'),
  *('model.ddpmpp.channels', 'model.ddpmpp.blocks', 'model.mlp.width', 'model.mlp.depth'),
  *('machine.cpu_devices', 'machine.microbatches', 'machine.fsdp', 'machine.memory_gib'),
)
NON_NEGATIVE = (
  *('seed', 'train.ramp', 'train.anneal', 'train.ema_ramp', 'train.label_dropout'),
  *('model.ddpmpp.dropout', 'model.classes', 'sampling.guidance'),
  *('likelihood.probes', 'likelihood.seed'),
  *('checkpoint.load', 'evaluation.every', 'data.augment'),
)
PROBABILITIES = ('model.ddpmpp.dropout', 'train.label_dropout')  # below 1
POSITIVE_INTEGERS = (
  *('data.shape', 'sampling.steps', 'model.ddpmpp.multipliers', 'model.ddpmpp.attention'),
)
MAYBE_EMPTY = ('model.ddpmpp.attention',)
CHOICES = {
  'path': path.PATHS,
  'train.weighting': losses.WEIGHTINGS,
  'machine.remat': REMAT,
  'machine.convolutions': ('auto', 'direct'),
  'model.space': ('pixel', 'frequency'),
  'model.dtype': ('float32', 'bfloat16'),
  'sampling.format': ('png', 'npz'),
}

MAX_SEEDS = 10_000_000  # in a range
MIN_EVALUATED = 20  # images


def check(config: ConfigDict):
  """Raises ConfigError for a wrong range or choice that no builder would notice."""
  # Ranges and choices of single keys.
  for key in POSITIVE + NON_NEGATIVE:
    value = get(config, key)
    if not (value > 0 or (value == 0 and key in NON_NEGATIVE)) or value == float('inf'):
      raise ConfigError(f'{key} = {value} must be positive' + ' or 0' * (key in NON_NEGATIVE))
  for key in POSITIVE_INTEGERS:
    value = get(config, key)
    if not all(isinstance(n, int) and n > 0 for n in value) or not (value or key in MAYBE_EMPTY):
      raise ConfigError(f'{key} = {value} must be positive whole numbers')
  for key in PROBABILITIES:
    if not get(config, key) < 1:
      raise ConfigError(f'{key} = {get(config, key)} must be below 1')
  for key, valid in CHOICES.items():
    if (value := get(config, key)) not in valid:
      raise ConfigError(f'{key} = {value!r}: there are {", ".join(valid)}')

  # Keys that must agree with one another.
  _check_data(config)
  _check_sampling(config)
  if config.basis.name == 'pixel' and config.model.space == 'frequency':
    raise ConfigError("model.space = 'frequency' needs a frequency basis, not basis.name = 'pixel'")
  if 0 < config.train.anneal < config.train.duration:
    raise ConfigError(
      f'train.anneal = {config.train.anneal} leaves nothing to learn at the end of train.duration '
      f'= {config.train.duration}: must be 0 or at least that'
    )


def _check_data(config):
  c = config.data
  if len(c.shape) < 2:
    raise ConfigError(f'data.shape = {c.shape} must be (*grid, channels)')
  if c.flip and len(c.shape) != 3:
    raise ConfigError(f'data.flip = True needs images, not data.shape = {c.shape}')
  if c.augment > 1:
    raise ConfigError(f'data.augment = {c.augment} is a probability: must be at most 1')
  if c.augment and len(c.shape) != 3:
    raise ConfigError(f'data.augment = {c.augment} needs images, not data.shape = {c.shape}')
  if c.augment and c.flip:
    raise ConfigError(
      f'data.augment = {c.augment} mirrors a random half of the images itself, and says so to the '
      'network: data.flip must be False'
    )


def _check_sampling(config):
  parse_seeds(config)
  if (n := len(parse_seeds(config, 'evaluation.seeds'))) < MIN_EVALUATED:
    raise ConfigError(
      f'evaluation.seeds = {config.evaluation.seeds!r}: {n} images are too few to evaluate; '
      f'{MIN_EVALUATED} are the least'
    )
  labels, classes = config.sampling.labels, config.model.classes
  if not all(isinstance(n, int) and 0 <= n < classes for n in labels):
    raise ConfigError(f'sampling.labels = {labels}: model.classes = {classes}')
  if config.sampling.guidance != 1 and not (classes and config.train.label_dropout):
    raise ConfigError(
      f'sampling.guidance = {config.sampling.guidance} needs a model of labels, some hidden in '
      f'training: model.classes = {classes}, train.label_dropout = {config.train.label_dropout}'
    )


def parse_seeds(config: ConfigDict, key: str = 'sampling.seeds') -> Integer[np.ndarray, ' n']:
  """The numbers that a key such as '0-99,200' names, ascending, each once. Raises ConfigError."""
  text, ranges = get(config, key), []
  for part in text.split(','):
    ends = re.fullmatch(r'(\d+)(?:-(\d+))?', part.strip())
    first, last = (int(n) for n in (ends[1], ends[2] or ends[1])) if ends else (1, 0)
    if not first <= last < min(2**32, first + MAX_SEEDS):
      raise ConfigError(
        f'{key} = {text!r}: {part!r} must be a number or a range such as 0-99, '
        f'of 0 to 2**32 - 1 and at most {MAX_SEEDS:,} seeds'
      )
    ranges.append(np.arange(first, last + 1, dtype=np.uint32))
  return np.unique(np.concatenate(ranges))


def get(config: ConfigDict, key: str):
  """The value of a dotted key."""
  for part in key.split('.'):
    config = config[part]
  return config


@contextlib.contextmanager
def blaming(key: str, value: object) -> Iterator[None]:
  """Gives a ValueError of the method or of a network the config key that it is about."""
  try:
    yield
  except ValueError as error:
    raise ConfigError(f'{key} = {value}: {error}') from None
