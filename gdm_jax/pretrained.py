"""A trained model as an object: `gdm_jax.load`."""

import contextlib
import operator
import pathlib
from collections.abc import Iterable, Sequence

import jax
import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from gdm_jax import build, likelihood
from gdm_jax.build import System
from gdm_jax.config import blaming, check, class_number
from gdm_jax.generation import editing
from gdm_jax.generation.generator import Generator
from gdm_jax.modes import complete as complete_mode
from gdm_jax.modes import edit as edit_mode
from gdm_jax.runtime import exported, machine, sharding
from gdm_jax.runtime.batching import padded_batches
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.solvers import ReversiblePair
from gdm_jax.training.workdir import adopt_config, contents_of, load_ema

Data = Float[np.ndarray, 'n *grid c']
Seeds = Iterable[int]
Labels = int | str | Sequence[int | str] | Int[np.ndarray, ' n'] | None
Steps = int | Sequence[int] | None
Order = Sequence[int] | None


def load(model: str | pathlib.Path) -> 'Model':
  """The model of a folder of `--mode=export`, by name, or 'hf:user/model' (huggingface_hub).

  If jax has not begun, the CPU is set up as the command sets it up, so that samples are the same
  bits. Nothing of the folder is executed. Raises ConfigError for a model that does not exist, and
  for a file that is missing, damaged or of another version.
  """
  opened = exported.open_model(str(model), 'model')
  config = opened.config()
  adopt_config(config, opened.folder, ())
  _set_up(config.machine.cpu_devices)
  system, mesh = build.system(config), sharding.mesh()
  params, step = load_ema(config, opened.folder, system, mesh)
  contents = contents_of(config, opened.folder)
  return Model(config, system, params, step, contents.classes if contents else ())


def _set_up(cpu_devices):
  machine.choose_convolutions(cpu_devices)
  try:
    machine.split_cpu(cpu_devices)
  except RuntimeError:  # jax has begun, with the devices that it has
    return


class Model:
  """A trained model. Data are [n, *grid, channels], float32; images have values in [-1, 1].

  Options that all methods share; by default they are as the model was exported:
    order: the groups in the order of generation. steps: in all, or one number per group, in that
    order. solver: of `gdm_jax.solvers`. guidance: of labelled data, 1 is none; a number, or one per
    group. labels: classes by number or name, one for all or one each; -1 is none.

  Options that do not fit raise ConfigError, named as keys of the config. Attributes: `config`,
  `shape` of one example, `num_groups`, `classes` by name, `params`, and `step`, at which they were
  taken from the training.
  """

  def __init__(
    self, config: ConfigDict, system: System, params: dict, step: int, classes: Sequence[str]
  ):
    self.config, self.params, self.step = config, params, step
    self.shape, self.classes = tuple(config.data.shape), tuple(classes)
    self._system, self._mesh = system, sharding.mesh()
    self._made: dict[tuple, object] = {}

  @property
  def num_groups(self) -> int:
    """The groups of the strategy that is sampled."""
    name, _ = build.sampling_order(self.config, self._system.strategies)
    return self._system.strategies[name].num_groups

  def sample(
    self,
    seeds: Seeds,
    *,
    order: Order = None,
    steps: Steps = None,
    labels: Labels = None,
    guidance: float | Sequence[float] | None = None,
    solver: str | None = None,
  ) -> Data:
    """Data, one for each seed, which it depends on alone; those of `--mode=sample`.

    labels: by default all classes in turn, by seed.
    """
    config = self._asked(order, steps, guidance, solver)
    seeds = _seeds(seeds)
    labels = self._labels(config, labels, len(seeds), build.sampling_labels(config, seeds))
    table, generator = build.sampling_table(config, self._system), self._generator(config)
    batch = config.sampling.batch
    batches = generator.sample_batches(self.params, table, seeds, labels, batch)
    return self._joined(generator.to_host(x, len(part)) for part, x in batches)

  def trajectory(
    self,
    seeds: Seeds,
    *,
    order: Order = None,
    steps: Steps = None,
    labels: Labels = None,
    guidance: float | Sequence[float] | None = None,
    solver: str | None = None,
  ) -> Float[np.ndarray, 'rows n *grid c']:
    """The points at every row of the table, from the latents to the data."""
    config = self._asked(order, steps, guidance, solver)
    seeds = _seeds(seeds)
    labels = self._labels(config, labels, len(seeds), build.sampling_labels(config, seeds))
    table, generator = build.sampling_table(config, self._system), self._generator(config)
    points = generator.iterate(self.params, table, seeds, labels, chunk_steps=1)
    return np.stack([generator.to_host(x, len(seeds)) for x in points])

  def complete(
    self,
    images: Data,
    groups: Sequence[int],
    *,
    seeds: Seeds | None = None,
    order: Order = None,
    steps: Steps = None,
    labels: Labels = None,
    guidance: float | Sequence[float] | None = None,
    solver: str | None = None,
  ) -> Data:
    """Data whose `groups` are those of the images, the rest generated.

    groups: by number; they come first in the order. seeds: by default 0, 1, ... labels: by default
    none.
    """
    config = self._asked(order, steps, guidance, solver)
    config.complete.groups, config.complete.mask = tuple(int(g) for g in groups), ''
    images = self._data('images', images)
    seeds = np.arange(len(images), dtype=np.uint32) if seeds is None else _seeds(seeds)
    if len(seeds) != len(images):
      raise ConfigError(f'seeds: {len(seeds)} of them for {len(images)} images')
    labels = self._labels(config, labels, len(images))
    config, table, known = complete_mode.completion_table(config, self._system)
    generator = self._generator(config)
    parts = []
    for rows, valid in padded_batches(len(images), config.sampling.batch):
      given = {'labels': labels[rows], 'known': images[rows], 'groups': known}
      parts.append(generator.sample(self.params, table, seeds[rows], **given)[:valid])
    return self._joined(parts)

  def encode(
    self,
    x: Data,
    *,
    order: Order = None,
    steps: Steps = None,
    label: int | str = -1,
    solver: str | None = None,
  ) -> Data | ReversiblePair:
    """Latents of data; of the solver reversible_heun a pair, which `decode` takes back exactly."""
    config = self._asked(order, steps, None, solver)
    table, x = build.sampling_table(config, self._system), self._data('x', x)
    label = int(self._labels(config, label, 1)[0])
    batch = config.sampling.batch
    return self._generator(config).encode(self.params, table, x, batch, label=label)

  def decode(
    self,
    z: Data | ReversiblePair,
    *,
    order: Order = None,
    steps: Steps = None,
    label: int | str = -1,
    solver: str | None = None,
  ) -> Data:
    """Data of latents, such as those of `encode` with the same options."""
    config = self._asked(order, steps, None, solver)
    table = build.sampling_table(config, self._system)
    z = jax.tree.map(lambda leaf: self._data('z', leaf), z)
    label = int(self._labels(config, label, 1)[0])
    batch = config.sampling.batch
    return self._generator(config).decode(self.params, table, z, batch, label=label)

  def edit(
    self,
    images: Data,
    operation: str = 'mix',
    *,
    groups: Sequence[int] = (),
    band: Sequence[int] = (),
    order: Order = None,
    steps: Steps = None,
    **options,
  ) -> list[tuple[str, list[tuple[str, Float[np.ndarray, '*grid c']]]]]:
    """Images with edited latents, as lines of captions and pictures, `figures.sheet` draws them.

    operation: mix, interpolate, traverse or vary, in the coefficients of `groups` or of the ranks
    `band`, or of each group in turn. options: the other keys of the config's section `edit`, such
    as `weights`, `ranks`, `strengths`, `variants` and `solver`.
    """
    config, images = self._asked(order, steps, None, None), self._data('images', images)
    changes = {'operation': operation, 'groups': tuple(groups), 'band': tuple(band), **options}
    for key, value in changes.items():
      if key not in config.edit:
        raise ConfigError(f'edit.{key}: there are {", ".join(config.edit)}')
      with _naming(f'edit.{key}', value):
        config.edit[key] = tuple(value) if isinstance(value, list) else value
    table, names = build.sampling_table(config, self._system), [str(i) for i in range(len(images))]
    masks = edit_mode.check(config, self._system, images, names)
    generator, batch = self._generator(config, 'edit.solver'), config.sampling.batch
    c = config.edit
    z = generator.encode(self.params, table, images, batch, label=c.encode_label)

    def decode(z):
      return generator.decode(self.params, table, z, batch, label=c.decode_label)

    return editing.decoded(edit_mode.lines(config, self._system, z, names, masks), decode)

  def log_likelihood(
    self,
    x: Data,
    *,
    order: Order = None,
    steps: Steps = None,
    labels: Labels = None,
    probes: int | None = None,
    solver: str | None = None,
  ) -> Float[np.ndarray, 'n k']:
    """log p of every group given those generated before it, nats; their sum is log p(x).

    It is the density of x as it is (`likelihood.dequantise` adds the noise that pixels of 0..255
    need). Columns are groups by number. labels: by default none. probes: Hutchinson's, of example
    i from seed i; 0 is the exact trace. solver: by default `likelihood.solver`.
    """
    config = self._asked(order, steps, None, None)
    c = config.likelihood
    c.solver = solver or c.solver
    with _naming('likelihood.probes', probes):
      c.probes = c.probes if probes is None else operator.index(probes)
    check(config)
    if config.train.times == 'discrete':
      raise ConfigError('train.times = discrete: such models have only --mode=likelihood')
    x, table = self._data('x', x), np.asarray(build.sampling_table(config, self._system))
    labels = self._labels(config, labels, len(x))
    program, parts = self._likelihood(config), []
    for rows, valid in padded_batches(len(x), config.sampling.batch, self._mesh.size):
      nats = program(self.params, table, x[rows], labels[rows], rows.astype(np.uint32))
      parts.append(np.asarray(nats)[:valid])
    name, sampled = build.sampling_order(config, self._system.strategies)
    indices = np.asarray(self._system.strategies[name].indices)
    membership = (indices[:, None] == np.arange(len(sampled))).astype(np.float32)
    nats = np.concatenate(parts) if parts else np.zeros((0, len(indices)), np.float32)
    return nats @ membership

  def _asked(self, order, steps, guidance, solver):
    """The config with what is asked in `sampling`. Raises ConfigError."""
    config = self.config.copy_and_resolve_references()
    changes = {'order': order, 'steps': steps, 'guidance': guidance, 'solver': solver}
    for key, value in changes.items():
      if value is None:
        continue
      if key in ('steps', 'guidance') and np.ndim(value) == 0:
        value = (value,)
      with _naming(f'sampling.{key}', value):
        number = float if key == 'guidance' else int
        config.sampling[key] = value if key == 'solver' else tuple(map(number, value))
    check(config)
    return config

  def _generator(self, config, key='sampling.solver'):
    solver, guidance = build.solver(config, key), build.sampling_guidance(config, self._system)
    guidance = 1.0 if key != 'sampling.solver' else guidance
    made = 'generator', solver.name, np.asarray(guidance).tobytes()
    if made not in self._made:
      cache = config.sampling.cache
      self._made[made] = Generator(self._system, self.shape, solver, self._mesh, guidance, cache)
    return self._made[made]

  def _likelihood(self, config):
    c, process, shape = config.likelihood, self._system.process, self.shape
    with blaming('likelihood.solver', repr(c.solver)):
      solver = likelihood.get_solver(build.solver(config, 'likelihood.solver'))
    batch, whole = sharding.batch_sharded(self._mesh), sharding.replicated(self._mesh)

    def nats(params, table, x, labels, seeds):
      probes = likelihood.rademacher(seeds, c.probes, shape) if c.probes else None
      predict = self._system.predictor.bind(params, labels)
      return likelihood.log_likelihood(predict, process, table, x, probes, solver)

    made = 'likelihood', solver.name, c.probes
    if made not in self._made:
      shardings = (whole, whole, batch, batch, batch)
      self._made[made] = jax.jit(nats, in_shardings=shardings, out_shardings=whole)
    return self._made[made]

  def _labels(self, config, labels, count, default=None):
    """The class of each example by number. Raises ConfigError."""
    if labels is None:
      return np.full(count, -1, np.int32) if default is None else default
    single = isinstance(labels, str) or np.ndim(labels) == 0
    wanted = [labels] * count if single else list(labels)
    if len(wanted) != count:
      raise ConfigError(f'labels: {len(wanted)} of them for {count} examples')
    with _naming('labels', labels):
      wanted = np.array([self._class(label) for label in wanted], np.int32)
    if not ((wanted >= -1) & (wanted < config.model.classes)).all():
      raise ConfigError(
        f'labels = {labels}: must be -1, none, or below model.classes = {config.model.classes}'
      )
    return wanted

  def _class(self, label):
    if isinstance(label, str):
      return class_number(label, self.classes)
    return operator.index(label)

  def _data(self, name, x):
    x = np.asarray(x, np.float32)
    if x.shape[1:] != self.shape:
      wanted = ', '.join(map(str, self.shape))
      raise ConfigError(f'{name} has shape {x.shape}: must be (n, {wanted})')
    return x

  def _joined(self, parts):
    return np.concatenate([np.zeros((0, *self.shape), np.float32), *parts])


def _seeds(seeds):
  with _naming('seeds', seeds):
    numbers = np.array([int(seed) for seed in seeds], np.int64)
    if not ((numbers >= 0) & (numbers < 2**32)).all():
      raise ValueError('must be 0 to 2**32 - 1')
  return numbers.astype(np.uint32)


@contextlib.contextmanager
def _naming(key, value):
  """Raises ConfigError for a value that is of another kind."""
  try:
    yield
  except (TypeError, ValueError, OverflowError) as error:
    raise ConfigError(f'{key} = {value}: {error}') from None
