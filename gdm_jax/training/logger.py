"""The log of a run: metrics.jsonl, a progress bar or lines, and TensorBoard if it is installed."""

import contextlib
import importlib.util
import json
import pathlib
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
import tqdm

from gdm_jax.runtime import distributed, files

LINE_SECONDS = 20.0  # between lines if there is no terminal
STALE_SECONDS = 30.0  # after which a slow run is logged although its interval is not over


class NonFiniteError(FloatingPointError):
  """A loss or gradient that is not finite, at `step`."""

  def __init__(self, step: int, name: str, value: float):
    super().__init__(f'{name} is {value} at step {step}')
    self.step = step


class Logger:
  """Collects metrics on the devices and writes their means once an interval.

  The clock counts training alone: `paused()` takes sampling, saving and compilation out of it.
  """

  def __init__(self, workdir: pathlib.Path, batch: int, step: int, steps: int):
    """batch: images a step; step: where the run begins; steps: where it ends."""
    self._batch, self._steps, self._primary = batch, steps, distributed.is_primary()
    self._pending: list[dict[str, jax.Array]] = []
    self._untimed, self._seconds, self._waited = 0, 0.0, 0.0
    self._started = time.perf_counter()
    self._step, self._printed = step, 0.0
    self._rate: float | None = None  # images/s of the last interval that had any
    self.images_per_second = 0.0  # the highest so far; compilation may count as training
    self._writer = None
    if self._primary:
      self._file = _reopened(workdir / 'metrics.jsonl', step)
      self._writer = _tensorboard(workdir)
    self._bar = tqdm.tqdm(
      total=steps * batch,
      initial=step * batch,
      unit='img',
      unit_scale=True,
      disable=None if self._primary else True,
      bar_format='{percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt} images{postfix}',
    )

  def close(self):
    """Closes the progress bar and the files."""
    self._bar.close()
    if self._primary:
      self._file.close()
    if self._writer:
      self._writer.close()

  def restart(self):
    """Restarts the clock, after compilation; steps so far are not in the rate."""
    self._untimed = len(self._pending)
    elapsed = self._seconds + time.perf_counter() - self._started
    self.images_per_second = max(self.images_per_second, self._untimed * self._batch / elapsed)
    self._seconds = self._waited = 0.0
    self._started = time.perf_counter()

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Excludes time from the training time."""
    self._seconds += time.perf_counter() - self._started
    yield
    self._started = time.perf_counter()

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts time as waiting for data."""
    start = time.perf_counter()
    yield
    self._waited += time.perf_counter() - start

  def stale(self) -> bool:
    """Whether the user has waited long for a line."""
    return self._seconds + time.perf_counter() - self._started > STALE_SECONDS

  def add(self, metrics: dict[str, jax.Array]):
    """The metrics of one step, left on the devices."""
    self._pending.append(metrics)

  def flush(self) -> dict[str, float]:
    """Writes the means since the last flush. Raises NonFiniteError at the first bad step."""
    if not self._pending:
      return {}
    values = {key: np.array([float(m[key]) for m in self._pending]) for key in self._pending[0]}
    steps = len(self._pending)
    self._pending = []
    for i in range(steps):
      for name, value in values.items():
        if not np.isfinite(value[i]):
          raise NonFiniteError(self._step + i + 1, name, value[i])
    self._step += steps
    elapsed = self._seconds + time.perf_counter() - self._started
    if steps > self._untimed:
      self._rate = (steps - self._untimed) * self._batch / elapsed
      self.images_per_second = max(self.images_per_second, self._rate)
    row = {
      'step': self._step,
      'images': self._step * self._batch,
      **{key: float(v.mean()) for key, v in values.items()},
      'images_per_second': self._rate,
      'waiting_for_data': self._waited / elapsed,
    }
    self.restart()
    if self._primary:
      self._write(row, steps)
    return row

  def record(self, step: int, row: dict):
    """Writes a row of its own, of what was measured at a step."""
    if self._primary:
      row = {'step': step, 'images': step * self._batch, **row}
      self._file.write(json.dumps(row) + '\n')
      self._file.flush()
      if self._writer:
        numbers = {k: v for k, v in row.items() if k not in ('step', 'images')}
        self._writer.write_scalars(step, dict(_flat(numbers)))

  def _write(self, row, steps):
    self._file.write(json.dumps(row) + '\n')
    self._file.flush()
    if self._writer:
      scalars = {k: v for k, v in row.items() if k not in ('step', 'images') and v}
      self._writer.write_scalars(row['step'], scalars)
    status = f'loss {row["loss"]:.4f}'
    if self._rate:
      left = tqdm.tqdm.format_interval((self._steps - self._step) * self._batch / self._rate)
      status = f'{self._rate:,.4g} img/s, {status}, {left} left'
    self._bar.set_postfix_str(status, refresh=False)
    self._bar.update(steps * self._batch)
    if self._bar.disable and time.perf_counter() - self._printed > LINE_SECONDS:
      self._printed = time.perf_counter()
      print(f'{row["images"]:,} images: {status}', file=sys.stderr, flush=True)


def _flat(tree, prefix=''):
  """The numbers of nested dicts and lists, by their paths."""
  for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
    if isinstance(value, dict | list):
      yield from _flat(value, f'{prefix}{key}/')
    else:
      yield f'{prefix}{key}', value


def _reopened(file, step):
  """Opens metrics.jsonl without the lines that a resumed run will write again."""
  if file.exists():
    steps = range(step + 1)
    lines = [json.dumps(row) for row in files.read_rows(file) if row.get('step') in steps]
    with files.atomic_write(file) as f:
      f.write(''.join(f'{line}\n' for line in lines).encode())
  return file.open('a')


def _tensorboard(workdir):
  if not all(map(importlib.util.find_spec, ('tensorflow', 'tensorboard'))):
    return None
  import tensorflow as tf

  tf.config.set_visible_devices([], 'GPU')
  from clu import metric_writers

  return metric_writers.SummaryWriter(str(workdir))
