"""What a valid config is: errors by key, ranges, choices, and the seeds that a range names."""

import contextlib
import re

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from gdm_jax import losses, path
from gdm_jax.models.ddpmpp import REMAT

POSITIVE = (
  *('train.batch', 'train.duration', 'train.learning_rate', 'train.ema_halflife'),
  *('train.microbatches', 'train.fsdp'),
  *('checkpoint.every', 'checkpoint.keep', 'log.every', 'log.samples_every', 'log.grid'),
  *('sampling.batch', 'complete.variants', 'edit.variants', 'likelihood.num'),
  *('model.channels', 'model.blocks', 'data.memory_gib'),
)
NATURAL = (
  *('seed', 'train.ramp', 'train.anneal', 'train.ema_ramp', 'train.label_dropout'),
  *('model.dropout', 'model.classes', 'sampling.guidance', 'likelihood.probes', 'likelihood.seed'),
  *('checkpoint.load', 'evaluation.every', 'data.augment'),
)
WHOLE = ('data.shape', 'model.multipliers', 'model.attention', 'sampling.steps')
MAYBE_EMPTY = ('model.attention',)
EDITS = ('reconstruct', 'mix', 'interpolate', 'traverse', 'vary')
FEATURES = ('pixels', 'classifier', 'inception', 'vgg19')

MAX_SEEDS = 10_000_000  # in a range
MIN_EVALUATED = 20  # images


class ConfigError(ValueError):
  """A config that cannot be run; the message names the key, the value and what would be valid."""


def check(config: ConfigDict):
  """Raises ConfigError where a range or a choice is wrong that no builder would notice."""
  for key in POSITIVE + NATURAL:
    value = get(config, key)
    if not (value > 0 or (value == 0 and key in NATURAL)) or value == float('inf'):
      raise ConfigError(f'{key} = {value} must be positive' + ' or 0' * (key in NATURAL))
  for key in WHOLE:
    value = get(config, key)
    if not all(isinstance(n, int) and n > 0 for n in value) or not (value or key in MAYBE_EMPTY):
      raise ConfigError(f'{key} = {value} must be positive whole numbers')
  if len(config.data.shape) < 2:
    raise ConfigError(f'data.shape = {config.data.shape} must be (*grid, channels)')
  for key in ('model.dropout', 'train.label_dropout'):
    if not get(config, key) < 1:
      raise ConfigError(f'{key} = {get(config, key)} must be below 1')
  if config.data.flip and len(config.data.shape) != 3:
    raise ConfigError(f'data.flip = True needs images, not data.shape = {config.data.shape}')
  if config.data.augment:
    _check_augment(config)
  parse_seeds(config)
  if (n := len(parse_seeds(config, 'evaluation.seeds'))) < MIN_EVALUATED:
    raise ConfigError(
      f'evaluation.seeds = {config.evaluation.seeds!r}: {n} images are too few to evaluate; '
      f'{MIN_EVALUATED} are the least'
    )
  labels = config.sampling.labels
  if not all(isinstance(n, int) and 0 <= n < config.model.classes for n in labels):
    raise ConfigError(f'sampling.labels = {labels}: model.classes = {config.model.classes}')
  if config.sampling.guidance != 1 and not (config.model.classes and config.train.label_dropout):
    raise ConfigError(
      f'sampling.guidance = {config.sampling.guidance} needs a model of labels, some hidden in '
      f'training: model.classes = {config.model.classes}, '
      f'train.label_dropout = {config.train.label_dropout}'
    )
  if config.basis.name == 'pixel' and config.model.space == 'frequency':
    raise ConfigError("model.space = 'frequency' needs a frequency basis, not basis.name = 'pixel'")
  if 0 < config.train.anneal < config.train.duration:
    raise ConfigError(
      f'train.anneal = {config.train.anneal} leaves nothing to learn at the end of train.duration '
      f'= {config.train.duration}: must be 0 or at least that'
    )
  choices = {
    'path': (config.path, tuple(path.PATHS)),
    'train.weighting': (config.train.weighting, tuple(losses.WEIGHTINGS)),
    'train.remat': (config.train.remat, tuple(REMAT)),
    'model.space': (config.model.space, ('pixel', 'frequency')),
    'model.dtype': (config.model.dtype, ('float32', 'bfloat16')),
    'sampling.format': (config.sampling.format, ('png', 'npz')),
    'evaluation.features': (config.evaluation.features, FEATURES),
    'edit.operation': (config.edit.operation, EDITS),
  }
  for key, (value, valid) in choices.items():
    if value not in valid:
      raise ConfigError(f'{key} = {value!r}: there are {", ".join(valid)}')


def _check_augment(config):
  c = config.data
  if c.augment > 1:
    raise ConfigError(f'data.augment = {c.augment} is a probability: must be at most 1')
  if len(c.shape) != 3 or config.model.name != 'ddpmpp':
    raise ConfigError(
      f"data.augment = {c.augment} needs images and model.name = 'ddpmpp', "
      f'not data.shape = {c.shape} and model.name = {config.model.name!r}'
    )
  if c.flip:
    raise ConfigError(
      f'data.augment = {c.augment} mirrors a random half of the images itself, and says so to the '
      'network: data.flip must be False'
    )


def parse_seeds(config: ConfigDict, key: str = 'sampling.seeds') -> Int[np.ndarray, ' n']:
  """The numbers that a key such as '0-99,200' names, ascending, each once. Raises ConfigError."""
  text, found = get(config, key), []
  for part in text.split(','):
    ends = re.fullmatch(r'(\d+)(?:-(\d+))?', part.strip())
    first, last = (int(n) for n in (ends[1], ends[2] or ends[1])) if ends else (1, 0)
    if not first <= last < min(2**32, first + MAX_SEEDS):
      raise ConfigError(
        f'{key} = {text!r}: {part!r} must be a number or a range such as 0-99, '
        f'of 0 to 2**32 - 1 and at most {MAX_SEEDS:,} seeds'
      )
    found.append(np.arange(first, last + 1, dtype=np.uint32))
  return np.unique(np.concatenate(found))


def get(config: ConfigDict, key: str):
  """The value of a dotted key."""
  for part in key.split('.'):
    config = config[part]
  return config


@contextlib.contextmanager
def blaming(key: str, value):
  """Gives the errors of the pure core the config key they are about."""
  try:
    yield
  except ValueError as error:
    raise ConfigError(f'{key} = {value}: {error}') from None
