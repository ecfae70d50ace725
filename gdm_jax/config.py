"""What a valid config is: errors by key, ranges, choices, and the seeds that a range names.

The sections of a config are of two kinds: MODEL and RUN say what is trained, and the others what is
asked of it and on which machine.
"""

import contextlib
import re
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from jaxtyping import Integer
from ml_collections import ConfigDict

from gdm_jax import losses, path, solvers
from gdm_jax.conditioning import is_groupwise
from gdm_jax.models import NETWORKS
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
  *('explore.draft_steps', 'explore.variants', 'explore.upload_mib'),
  *('sampling.rho', 'sampling.adaptive.rtol', 'sampling.adaptive.atol'),
  *('model.ddpmpp.channels', 'model.ddpmpp.blocks', 'model.mlp.width', 'model.mlp.depth'),
  *(f'model.group_causal.{name}' for name in ('patch', 'width', 'depth', 'heads')),
  *('model.context_unet.channels', 'model.context_unet.blocks', 'model.context_unet.features'),
  *('model.context_unet.denoiser_channels', 'model.context_unet.denoiser_blocks'),
  *('machine.cpu_devices', 'machine.microbatches', 'machine.fsdp', 'machine.memory_gib'),
)
NON_NEGATIVE = (
  *('seed', 'train.ramp', 'train.anneal', 'train.ema_ramp', 'train.label_dropout'),
  *('model.ddpmpp.dropout', 'model.group_causal.dropout', 'model.context_unet.dropout'),
  'model.classes',
  *('likelihood.probes', 'likelihood.seed'),
  *('checkpoint.load', 'evaluation.every', 'data.augment', 'export.grid'),
  'log.validation_every',
)
PROBABILITIES = (  # below 1
  *('model.ddpmpp.dropout', 'model.group_causal.dropout', 'model.context_unet.dropout'),
  'train.label_dropout',
)
POSITIVE_INTEGERS = (
  *('data.shape', 'sampling.steps', 'model.ddpmpp.multipliers', 'model.ddpmpp.attention'),
  *('model.context_unet.multipliers', 'model.context_unet.attention'),
  'model.context_unet.denoiser_multipliers',
)
SEEDS = ('seed', 'likelihood.seed')
MAYBE_EMPTY = ('model.ddpmpp.attention', 'model.context_unet.attention')
CHOICES = {
  'path': path.PATHS,
  'train.weighting': losses.WEIGHTINGS,
  'machine.all_reduce': ('auto', 'float32', 'bfloat16'),
  'machine.remat': REMAT,
  'machine.convolutions': ('auto', 'direct'),
  'model.space': ('pixel', 'frequency'),
  'model.dtype': ('float32', 'bfloat16'),
  'model.precision': ('float32', 'tensorfloat32', 'bfloat16'),
  'train.times': ('continuous', 'discrete'),
  'sampling.format': ('png', 'npz'),
  'export.dtype': ('float32', 'float16', 'bfloat16'),
}

MAX_SEEDS = 10_000_000  # in a range
MAX_GRID = 100  # rows and columns of a picture of samples
MAX_VARIANTS = 16  # pictures that a page shows side by side
MIN_EVALUATED = 20  # images


def check(config: ConfigDict):
  """Raises ConfigError for a wrong range or choice that no builder would notice."""
  # Types, ranges and choices of single keys.
  _check_numbers(config)
  for key in POSITIVE + NON_NEGATIVE:
    value = get(config, key)
    if not (value > 0 or (value == 0 and key in NON_NEGATIVE)) or value == float('inf'):
      raise ConfigError(f'{key} = {value} must be positive' + ' or 0' * (key in NON_NEGATIVE))
  for key in SEEDS:
    if not get(config, key) < 2**32:
      raise ConfigError(f'{key} = {get(config, key)} must be below 2**32')
  for key in POSITIVE_INTEGERS:
    value = get(config, key)
    if not all(isinstance(n, int) and n > 0 for n in value) or not (value or key in MAYBE_EMPTY):
      raise ConfigError(f'{key} = {value} must be positive whole numbers')
  for key in PROBABILITIES:
    if not get(config, key) < 1:
      raise ConfigError(f'{key} = {get(config, key)} must be below 1')
  for key in ('log.grid', 'export.grid'):
    if (grid := get(config, key)) > MAX_GRID:
      raise ConfigError(f'{key} = {grid} must be at most {MAX_GRID}, the lines of a picture')
  if (variants := config.explore.variants) > MAX_VARIANTS:
    raise ConfigError(f'explore.variants = {variants} must be at most {MAX_VARIANTS}')
  for key, valid in CHOICES.items():
    if (value := get(config, key)) not in valid:
      raise ConfigError(f'{key} = {value!r}: there are {", ".join(valid)}')

  # Keys that must agree with one another.
  _check_data(config)
  _check_sampling(config)
  if config.basis.name == 'pixel' and config.model.space == 'frequency':
    raise ConfigError("model.space = 'frequency' needs a frequency basis, not basis.name = 'pixel'")
  if config.machine.all_reduce != 'auto' and config.machine.fsdp > 1:
    raise ConfigError(
      f'machine.all_reduce = {config.machine.all_reduce!r} needs whole parameters on every device, '
      f'not machine.fsdp = {config.machine.fsdp}'
    )
  if 0 < config.train.anneal < config.train.duration:
    raise ConfigError(
      f'train.anneal = {config.train.anneal} leaves nothing to learn at the end of train.duration '
      f'= {config.train.duration}: must be 0 or at least that'
    )


def _check_numbers(config, prefix=''):
  """Raises ConfigError if a sequence, the names of classes apart, holds anything but numbers."""
  for name, value in config.items():
    key = prefix + name
    if isinstance(value, ConfigDict):
      _check_numbers(value, f'{key}.')
    elif isinstance(value, tuple) and key != 'sampling.labels':
      for entry in value:
        if isinstance(entry, bool) or not isinstance(entry, (int, float)):
          raise ConfigError(f'{key} = {value}: {entry!r} is no number')


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
  # Names wait for the data that has them (`resolve_labels`).
  if not all((isinstance(n, str) and classes) or (n in range(-1, classes)) for n in labels):
    raise ConfigError(f'sampling.labels = {labels}: model.classes = {classes}')
  guidance = config.sampling.guidance
  if not guidance or not all(0 <= w < float('inf') for w in guidance):
    raise ConfigError(f'sampling.guidance = {guidance} must be numbers, each positive or 0')
  if is_guided(config) and not (classes and config.train.label_dropout):
    raise ConfigError(
      f'sampling.guidance = {guidance} needs a model of labels, some hidden in '
      f'training: model.classes = {classes}, train.label_dropout = {config.train.label_dropout}'
    )


def check_solver(config: ConfigDict, key: str, solver: solvers.Solver):
  """Raises ConfigError if a solver needs predictions that the model does not have.

  key: of the config, which names the solver.
  """
  if solver.anticipates and (reason := _unknown_ahead(config)):
    raise ConfigError(
      f'{key} = {solver.name!r} uses predictions of groups before they move, but {reason}'
    )


def solver_names(config: ConfigDict) -> list[str]:
  """The solvers that a model of this config can be sampled with."""
  if config.train.times == 'discrete':
    return ['euler']
  found = sorted(solvers.SOLVERS.items())
  return [name for name, s in found if not (s.anticipates and _unknown_ahead(config))]


def _unknown_ahead(config):
  """Why a model cannot predict a group before it moves; '' if it can."""
  if is_groupwise(NETWORKS[config.model.name]):
    return f'model.name = {config.model.name} predicts it from whole groups alone'
  if config.train.weighting in ('active', 'velocity'):
    return f'train.weighting = {config.train.weighting} teaches groups that move alone'
  return ''


def class_number(name: str, classes: Sequence[str]) -> int:
  """The number of a class of the data; capitals do not matter. Raises ValueError for others."""
  names = [known.lower() for known in classes]
  if name.strip().lower() not in names:
    known = ', '.join(classes) or 'none by name'
    raise ValueError(f'{name!r} is no class of the data; it has {known}')
  return names.index(name.strip().lower())


def resolve_labels(config: ConfigDict, classes: Sequence[str]):
  """Replaces the names of classes in `sampling.labels` by their numbers; capitals do not matter.

  classes: the names of the data's classes, in order. Raises ConfigError for other names.
  """
  names = {name.lower() for name in classes}
  resolved, labels = [], config.sampling.labels
  for label in labels:
    # The command line reads 'cat,dog' as one word.
    is_list = isinstance(label, str) and label.lower() not in names
    with blaming('sampling.labels', labels):
      for word in label.split(',') if is_list else [label]:
        resolved.append(class_number(word, classes) if isinstance(word, str) else word)
  config.sampling.labels = tuple(resolved)


OF_TRAINING = (
  *('train.start', 'log.validation'),
  *('machine.all_reduce', 'machine.fsdp', 'machine.microbatches'),
)
"""Keys that nothing but training obeys, and that are not part of the model."""

UNUSED = {
  'sample': ('evaluation',),
  'complete': ('evaluation', 'sampling.folder', 'sampling.format'),
  'evaluate': ('sampling.folder', 'sampling.format'),
  'explore': ('evaluation', 'sampling.folder', 'sampling.format'),
  **dict.fromkeys(
    ('edit', 'likelihood'),
    (
      'evaluation',
      *(f'sampling.{x}' for x in ('solver', 'guidance', 'labels', 'folder', 'format')),
    ),
  ),
}
"""What else modes do not use, by mode."""


def without_effect(config: ConfigDict, mode: str, explicit: Collection[str]) -> dict[str, str]:
  """Keys of a valid config that change nothing, and why.

  explicit: the keys that the command line names; of the others only a resolution of attention that
  never occurs is worth a word.
  """
  c, found = config, {}
  network, options = NETWORKS[c.model.name], c.model.get(c.model.name, {})
  if mode == 'train' and 'attention' in options:
    sides = [max(c.data.shape[:-1], default=0) >> i for i in range(len(options.multipliers))]
    if never := [side for side in options.attention if side not in sides]:
      key = f'model.{c.model.name}.attention'
      found[key] = f'{never} never occurs; the resolutions are {sides}'

  name, used = c.data.name, [c[x].solver for x in ('sampling', 'edit', 'likelihood')]
  used.append(c.explore.draft_solver)
  sections = 'complete', 'edit', 'explore', 'export', 'likelihood'
  modes = {x: f'--mode={mode}' for x in sections if x != mode}
  networks = {f'model.{x}': f'model.name = {c.model.name}' for x in NETWORKS if x != c.model.name}
  reasons = {
    **modes,
    **networks,
    'sampling.cache': not is_groupwise(network) and f'model.name = {c.model.name}',
    'machine.remat': not hasattr(network, 'remat') and f'model.name = {c.model.name}',
    'sampling.latents': mode not in ('sample', 'complete') and f'--mode={mode}',
    'sampling.ranks': mode not in ('sample', 'complete') and f'--mode={mode}',
    'log.validation_every': not c.log.validation and "log.validation = ''",
    'basis.blur': c.basis.name != 'blur' and f'basis.name = {c.basis.name}',
    'sampling.adaptive': 'adaptive' not in used and f'sampling.solver = {c.sampling.solver}',
    'train.label_dropout': not c.model.classes and 'model.classes = 0',
    'data.skip_broken': not name.startswith('folder:') and f'data.name = {name}',
    **dict.fromkeys(OF_TRAINING, mode != 'train' and f'--mode={mode}'),
    **dict.fromkeys(UNUSED.get(mode, ()), f'--mode={mode}'),
    **dict.fromkeys(
      ('likelihood.solver', 'likelihood.probes'),
      c.train.times == 'discrete' and 'train.times = discrete',
    ),
    'checkpoint.model': mode == 'train' and '--mode=train; train.start begins from a model',
    'checkpoint.load': c.checkpoint.model and f'checkpoint.model = {c.checkpoint.model}',
    'machine.data_dir': not name.startswith('tfds:') and f'data.name = {name}',
  }
  for key in sorted(explicit):
    for prefix, reason in reasons.items():
      if reason and f'{key}.'.startswith(f'{prefix}.'):
        found[key] = reason
  return found


def is_guided(config: ConfigDict) -> bool:
  """Whether sampling is guided, which takes two evaluations of the network in place of one."""
  return any(w != 1 for w in config.sampling.guidance)


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
