"""Checkpoints: orbax, asynchronous, the last few kept; a config that must not change under a run.

A checkpoint holds the EMA parameters (all that generation needs), the rest of the training state,
the position in the data, and what it was made with.
"""

import importlib.metadata
import json
import pathlib

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

import gdm_jax
from gdm_jax.build import ConfigError
from gdm_jax.training.step import TrainState

FREE = ('cpu_devices', 'log.', 'checkpoint.', 'sampling.', 'data.data_dir', 'data.memory_gib')
"""Keys that may differ between runs in one workdir: they do not touch what is trained."""

MODEL = ('data.shape', 'basis.', 'path', 'strategies.', 'model.')
"""Keys that say what a trained model is."""

PACKAGES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')


class Checkpoints:
  """The checkpoints of one workdir; a context manager that waits for pending writes."""

  def __init__(self, workdir: pathlib.Path, keep: int | None = None):
    """keep: how many to keep when saving; None only reads, and leaves unfinished writes alone."""
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, cleanup_tmp_directories=keep is not None
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
    self._manager.wait_until_finished()
    self._manager.close()

  def latest(self) -> int | None:
    """The newest step that has been saved whole."""
    return self._manager.latest_step()

  def save(self, state: TrainState, data: dict, config: ConfigDict):
    """Starts writing the state and the data iterator's position; returns at once."""
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    about = {'config': json.loads(config.to_json()), 'versions': versions()}
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
    """The newest state, laid out as the abstract `target`, and the data position with it."""
    self._check(target.ema)
    items = self._manager.restore(
      self.latest(),
      args=ocp.args.Composite(
        ema=ocp.args.StandardRestore(target.ema),
        state=ocp.args.StandardRestore(target.replace(ema=None)),
        data=ocp.args.JsonRestore(),
      ),
    )
    return items['state'].replace(ema=items['ema']), items['data']

  def restore_ema(self, target: dict) -> dict:
    """The newest EMA parameters, laid out as the abstract `target`."""
    self._check(target)
    args = ocp.args.Composite(ema=ocp.args.StandardRestore(target))
    return self._manager.restore(self.latest(), args=args)['ema']

  def _check(self, target):
    """Raises ConfigError naming the first parameter in which another model was saved."""
    saved = self._manager.item_metadata(self.latest())['ema']
    saved, wanted = (
      {jax.tree_util.keystr(k, simple=True, separator='/'): v.shape for k, v in leaves}
      for leaves in (jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (saved, target))
    )
    for name in sorted({*saved, *wanted}):
      if saved.get(name) != wanted.get(name):
        raise ConfigError(
          f'config.model describes another network than checkpoint {self.latest()}: '
          f'{name} is {wanted.get(name)}, there {saved.get(name)}'
        )


def versions() -> dict[str, str]:
  """What the run is made with."""
  installed = {name: importlib.metadata.version(name) for name in PACKAGES}
  return {'gdm_jax': gdm_jax.__version__, **installed}


def write_config(config: ConfigDict, workdir: pathlib.Path):
  """Leaves the resolved config in the workdir, whole or not at all."""
  temporary = workdir / 'config.json.tmp'
  temporary.write_text(config.to_json(indent=2) + '\n')
  temporary.replace(workdir / 'config.json')


def check_unchanged(config: ConfigDict, workdir: pathlib.Path, generating: bool = False):
  """Raises ConfigError naming the keys in which the workdir's own config differs.

  A run may be lengthened, and the keys in FREE changed; for generating, only what describes the
  model matters.
  """
  file = workdir / 'config.json'
  if not file.exists():
    return
  old, new = (dict(_flatten(json.loads(c))) for c in (file.read_text(), config.to_json()))
  changed = [
    f'{key} = {new.get(key)} (there {old.get(key)})'
    for key in sorted({*old, *new})
    if old.get(key) != new.get(key)
    and (key.startswith(MODEL) or not generating)
    and not key.startswith(FREE)
    and not (key == 'train.duration' and new[key] > old[key])
  ]
  if changed:
    raise ConfigError(
      f'{workdir} holds a run with another config: {", ".join(changed)}; '
      'take another --workdir or the same config'
    )


def _flatten(tree, prefix=''):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from _flatten(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value
