"""Checkpoints: orbax, asynchronous, the last few kept.

A checkpoint holds the EMA parameters (all that generation needs), the rest of the training state,
the position in the data, and what it was made with.
"""

import pathlib
import time

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from gdm_jax.runtime import console, distributed, files
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training.step import TrainState

WRITE_TIMEOUT = 600  # seconds for the slowest process to finish writing
UNFINISHED = '*.orbax-checkpoint-tmp*'  # folders that are still being written
WRITTEN_LAST = '_CHECKPOINT_METADATA'  # the times of writing, not needed for reading


class Checkpoints:
  """The checkpoints of one workdir; a context manager that waits for pending writes.

  Checksums of its files are written into each before it gets its final name.
  """

  def __init__(self, workdir: pathlib.Path, keep: int | None = None):
    """keep: how many to keep when saving; None only reads, and leaves unfinished writes alone."""
    self._workdir = workdir
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      cleanup_tmp_directories=keep is not None,
      single_host_load_and_broadcast=True,  # all know of the same steps
      async_options=ocp.AsyncOptions(
        timeout_secs=WRITE_TIMEOUT, post_finalization_callback=self._write_checksums
      ),
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
    """The newest step that has been saved; None if there is none."""
    return max(self.steps(), default=None)

  def steps(self) -> list[int]:
    """The steps that have been saved, ascending."""
    return sorted(map(int, self._manager.all_steps()))

  def save(self, state: TrainState, data: dict, about: dict):
    """Starts writing the state, the data iterator's position and what the run is; returns at once.

    Raises OSError if the disk is full, also for the checkpoint before; older ones stay.
    """
    step = int(state.step)
    if step in self.steps():
      return
    self._finish()
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
    """The newest intact state, laid out as the abstract `target`, and its position in the data.

    Newer ones that are damaged are named and moved to workdir/damaged. Raises ConfigError if none
    is intact.
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

    step, items = self._newest_intact(read)
    self._set_aside([other for other in self.steps() if other > step])
    return items['state'].replace(ema=items['ema']), items['data']

  def restore_ema(self, target: dict, step: int = 0) -> tuple[dict, int]:
    """The EMA parameters of a step, or of the newest intact one, laid out as `target`; the step.

    Raises ConfigError if that step is damaged, or none is intact.
    """

    def read(step):
      self._check(target, step)
      args = ocp.args.Composite(ema=ocp.args.StandardRestore(target))
      return self._manager.restore(step, args=args)['ema']

    step, ema = self._newest_intact(read, (step,) if step else ())
    return ema, step

  def about(self) -> dict | None:
    """What the newest checkpoint was made with, as given to `save`; None if there is none."""
    if (step := self.latest()) is None:
      return None
    args = ocp.args.Composite(about=ocp.args.JsonRestore())
    return self._manager.restore(step, args=args)['about']

  def _newest_intact(self, read, candidates=()):
    """The newest step that can be read, and what `read` returns for it."""
    candidates = list(candidates) or self.steps()[::-1]
    for step in candidates:
      folder = self._folder(step)
      # Process 0 decides, so that no other reads all files.
      primary = distributed.is_primary()
      damage = files.find_damage(folder) if primary and files.has_checksums(folder) else ''
      if not distributed.from_process_0(bool(damage)):
        try:
          return step, read(step)
        except ConfigError:
          raise
        except Exception as error:
          if files.has_checksums(folder):  # the files are intact, so the cause is another
            raise
          damage = str(error.__cause__ or error).splitlines()[0]
      more = '; looking for the one before' if step != candidates[-1] else ''
      console.log(f'checkpoint {step} is damaged ({damage}){more}')
    raise ConfigError(
      f'--workdir={self._workdir}: of the checkpoints {candidates[::-1]} none is intact'
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
    """Waits for pending writes."""
    with files.raising_disk_full():
      self._manager.wait_until_finished()

  def _write_checksums(self):
    """Called by orbax in the background of process 0, when all is written but not yet renamed."""
    for folder in (self._workdir / 'checkpoints').glob(UNFINISHED):
      files.write_checksums(folder, exclude=WRITTEN_LAST)

  def _folder(self, step):
    return self._workdir / 'checkpoints' / str(step)

  def _check(self, target, step):
    """Raises ConfigError naming the first parameter that differs from the saved model's."""
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
