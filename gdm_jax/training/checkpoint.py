"""Checkpoints: orbax, asynchronous, the last few kept; a config that must not change under a run.

A checkpoint holds the EMA parameters (all that generation needs), the rest of the training state,
the position in the data, and what it was made with.
"""

import importlib.metadata
import json
import pathlib
import time
from collections.abc import Collection

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

import gdm_jax
from gdm_jax.build import System
from gdm_jax.config import get
from gdm_jax.runtime import console, distributed, files, sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training.step import TrainState

FREE = (
  *('cpu_devices', 'compilation_cache', 'log.', 'checkpoint.', 'data.data_dir', 'data.memory_gib'),
  *('sampling.', 'complete.', 'edit.', 'likelihood.', 'evaluation.'),
  *('train.microbatches', 'train.remat', 'train.fsdp'),
)
"""Keys that may differ between runs in one workdir: they do not touch what is trained."""

MODEL = ('data.shape', 'basis.', 'path', 'strategies.', 'model.')
"""Keys that say what a trained model is."""

ADOPTED = (
  *MODEL,
  *('data.name', 'data.split', 'data.data_dir', 'data.flip', 'data.augment', 'train.batch'),
  'train.label_dropout',
)
"""Keys that the modes after training take from the workdir, unless they are given."""

WAIT = 600  # seconds from when a process has written its part until all have
UNNAMED = '*.orbax-checkpoint-tmp*'  # what is being written
WRITTEN_LAST = '_CHECKPOINT_METADATA'  # the times of writing, not needed for reading

PACKAGES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')


class Checkpoints:
  """The checkpoints of one workdir; a context manager that waits for pending writes.

  Each is sealed with the checksums of its files before it gets its name.
  """

  def __init__(self, workdir: pathlib.Path, keep: int | None = None):
    """keep: how many to keep when saving; None only reads, and leaves unfinished writes alone."""
    self._workdir = workdir
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      cleanup_tmp_directories=keep is not None,
      single_host_load_and_broadcast=True,  # all know of the same steps
      async_options=ocp.AsyncOptions(timeout_secs=WAIT, post_finalization_callback=self._seal),
    )
    self._manager = ocp.CheckpointManager(
      (workdir / 'checkpoints').absolute(),
      options=options,
      item_handlers={
        'ema': ocp.StandardCheckpointHandler(),
        'state': ocp.StandardCheckpointHandler(),
        'data': ocp.JsonCheckpointHandler(),
        'about': ocp.JsonCheckpointHandler(),
      },
    )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    try:
      self._finish()
    finally:
      self._manager.close()

  def latest(self) -> int | None:
    """The newest step that has been saved whole, to the best of our knowledge."""
    return max(self.steps(), default=None)

  def steps(self) -> list[int]:
    """The steps that have been saved whole, ascending."""
    return sorted(map(int, self._manager.all_steps()))

  def save(self, state: TrainState, data: dict, config: ConfigDict):
    """Starts writing the state and the data iterator's position; returns at once.

    Raises OSError where the disk is full, also about the checkpoint before; older ones stay.
    """
    step = int(state.step)
    if step in self.steps():
      return
    self._finish()
    about = {'config': json.loads(config.to_json()), 'versions': versions()}
    with files.raising_disk_full():
      self._manager.save(
        step,
        args=ocp.args.Composite(
          ema=ocp.args.StandardSave(state.ema),
          state=ocp.args.StandardSave(state.replace(ema=None)),
          data=ocp.args.JsonSave(data),
          about=ocp.args.JsonSave(about),
        ),
      )

  def restore(self, target: TrainState) -> tuple[TrainState, dict]:
    """The newest whole state, laid out as the abstract `target`, and the data position with it.

    Damaged ones that are newer are named, and set aside in workdir/damaged. Raises ConfigError
    where none is whole.
    """

    def read(step):
      self._check(target.ema, step)
      return self._manager.restore(
        step,
        args=ocp.args.Composite(
          ema=ocp.args.StandardRestore(target.ema),
          state=ocp.args.StandardRestore(target.replace(ema=None)),
          data=ocp.args.JsonRestore(),
        ),
      )

    step, items = self._newest_whole(read)
    self._set_aside([other for other in self.steps() if other > step])
    return items['state'].replace(ema=items['ema']), items['data']

  def restore_ema(self, target: dict, step: int = 0) -> tuple[dict, int]:
    """The EMA parameters of a step, or of the newest whole one, laid out as the abstract `target`.

    And the step. Raises ConfigError where that step is damaged, or none is whole.
    """

    def read(step):
      self._check(target, step)
      args = ocp.args.Composite(ema=ocp.args.StandardRestore(target))
      return self._manager.restore(step, args=args)['ema']

    step, ema = self._newest_whole(read, (step,) if step else ())
    return ema, step

  def _newest_whole(self, read, candidates=()):
    """The newest step that can be read, and what `read` makes of it."""
    candidates = list(candidates) or self.steps()[::-1]
    for step in candidates:
      folder = self._folder(step)
      first = distributed.is_primary()  # it decides, so no other need read it all
      wrong = files.find_damage(folder) if first and files.has_checksums(folder) else ''
      if not distributed.from_process_0(bool(wrong)):
        try:
          return step, read(step)
        except ConfigError:
          raise
        except Exception as error:
          if files.has_checksums(folder):  # it is whole, so something else is the matter
            raise
          wrong = str(error.__cause__ or error).splitlines()[0]
      then = '; looking for the one before' if step != candidates[-1] else ''
      console.log(f'checkpoint {step} is damaged ({wrong}){then}')
    raise ConfigError(
      f'--workdir={self._workdir}: of the checkpoints {candidates[::-1]} none is whole'
    )

  def _set_aside(self, steps):
    if steps and distributed.is_primary():
      aside = self._workdir / 'damaged'
      aside.mkdir(exist_ok=True)
      for step in steps:
        self._folder(step).rename(aside / f'{step}-{time.time_ns()}')
    if steps:
      multihost_utils.sync_global_devices('damaged checkpoints are set aside')
      self._manager.reload()

  def _finish(self):
    """Waits until what was begun is written."""
    with files.raising_disk_full():
      self._manager.wait_until_finished()

  def _seal(self):
    """Orbax calls it in the background of process 0, when all is written but has no name yet."""
    for folder in (self._workdir / 'checkpoints').glob(UNNAMED):
      files.write_checksums(folder, but=WRITTEN_LAST)

  def _folder(self, step):
    return self._workdir / 'checkpoints' / str(step)

  def _check(self, target, step):
    """Raises ConfigError naming the first parameter in which another model was saved."""
    saved = self._manager.item_metadata(step)['ema']
    saved, wanted = (
      {jax.tree_util.keystr(k, simple=True, separator='/'): v.shape for k, v in leaves}
      for leaves in (jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (saved, target))
    )
    for name in sorted({*saved, *wanted}):
      if saved.get(name) != wanted.get(name):
        raise ConfigError(
          f'config.model describes another network than checkpoint {step}: '
          f'{name} is {wanted.get(name)}, there {saved.get(name)}'
        )


def trained(
  config: ConfigDict, workdir: pathlib.Path, system: System, mesh: Mesh
) -> tuple[dict, int]:
  """The EMA parameters of a workdir, on every device, and their step.

  It is `checkpoint.load`, or the newest.
  Raises ConfigError where the workdir holds no such checkpoint, or one of another model.
  """
  check_unchanged(config, workdir, generating=True)
  if (workdir / 'checkpoints').is_dir():
    layout = sharding.replicated(mesh)
    target = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout),
      jax.eval_shape(system.init, jax.random.key(0)),
    )
    with Checkpoints(workdir) as checkpoints:
      there, wanted = checkpoints.steps(), config.checkpoint.load
      if wanted and wanted not in there:
        raise ConfigError(f'checkpoint.load = {wanted}: {workdir} holds {there}')
      if there:
        return checkpoints.restore_ema(target, wanted)
  raise ConfigError(f'--workdir={workdir} holds no checkpoint; train first')


def versions() -> dict[str, str]:
  """What the run is made with."""
  installed = {name: importlib.metadata.version(name) for name in PACKAGES}
  return {'gdm_jax': gdm_jax.__version__, **installed}


def write_config(config: ConfigDict, workdir: pathlib.Path):
  """Leaves the resolved config in the workdir, whole or not at all."""
  with files.atomic_write(workdir / 'config.json') as f:
    f.write(f'{config.to_json(indent=2)}\n'.encode())


def check_unchanged(config: ConfigDict, workdir: pathlib.Path, generating: bool = False):
  """Raises ConfigError naming the keys in which the workdir's own config differs.

  A run may be lengthened, and the keys in FREE changed; for generating, only what describes the
  model matters. Keys that the program had not yet when the workdir was made do not count.
  """
  file = workdir / 'config.json'
  if not file.exists():
    return
  old, new = (dict(_flatten(json.loads(c))) for c in (file.read_text(), config.to_json()))
  changed = [
    f'{key} = {new.get(key)} (there {old.get(key)})'
    for key in sorted({*old, *new})
    if old.get(key) != new.get(key)
    and ((key in old and key in new) or key.startswith('strategies.'))
    and (key.startswith(MODEL) or not generating)
    and not key.startswith(FREE)
    and not (key == 'train.duration' and new[key] > old[key])
  ]
  if changed:
    raise ConfigError(
      f'{workdir} holds a run with another config: {", ".join(changed)}; '
      'take another --workdir or the same config'
    )


def adopt_model(config: ConfigDict, workdir: pathlib.Path, explicit: Collection[str]):
  """Makes `config` describe the workdir's model and data, but for the keys named explicitly.

  So a run with overrides can be sampled without repeating them.
  """
  file = workdir / 'config.json'
  if not file.exists():
    return
  saved = _tuples(json.loads(file.read_text()))
  if not any(key.startswith('strategies.') for key in explicit):
    config.strategies = ConfigDict(saved['strategies'])
  for key, value in _flatten(saved):
    if key.startswith(ADOPTED) and not key.startswith('strategies.') and key not in explicit:
      *sections, name = key.split('.')
      (get(config, '.'.join(sections)) if sections else config)[name] = value


def _tuples(tree):
  if isinstance(tree, dict):
    return {key: _tuples(value) for key, value in tree.items()}
  return tuple(tree) if isinstance(tree, list) else tree


def _flatten(tree, prefix=''):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from _flatten(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value
