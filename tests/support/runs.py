"""Runs of the real command, shrunk until a step takes milliseconds."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp

ROOT = pathlib.Path(__file__).parents[2]
BATCH = 16
TINY = (
  '--config.machine.cpu_devices=1',
  '--config.model.ddpmpp.channels=8',
  '--config.model.ddpmpp.multipliers=1',
  '--config.model.ddpmpp.blocks=1',
  '--config.model.ddpmpp.attention=',
  f'--config.train.batch={BATCH}',
  '--config.train.ramp=64',
  f'--config.log.every={BATCH}',
  '--config.log.grid=2',
  '--config.sampling.steps=4',
  '--config.sampling.batch=8',
)
TINY_MLP = ('--config.model.mlp.width=8', '--config.model.mlp.depth=1')


def arguments(workdir, *overrides, steps=4, config='digits', save_every=2):
  """The arguments of a tiny run of `steps` steps."""
  return [
    f'--config={ROOT}/configs/{config}.py',
    f'--workdir={workdir}',
    *TINY,
    *TINY_MLP * config.startswith('toy'),
    f'--config.train.duration={steps * BATCH}',
    f'--config.checkpoint.every={save_every * BATCH}',
    *overrides,
  ]


def environment(devices=1, **extra):
  """The environment of a subprocess with that many virtual devices."""
  flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}'
  return {**os.environ, 'XLA_FLAGS': flags, **extra}


def command(*args, devices=1, **extra) -> subprocess.CompletedProcess:
  """The command in a process of its own."""
  return _run('-m', 'gdm_jax.main', *args, devices=devices, **extra)


def python(*args, devices=1, **extra) -> subprocess.CompletedProcess:
  """Python in a process of its own, which must end well."""
  done = _run(*args, devices=devices, **extra)
  assert done.returncode == 0, done.stderr
  return done


def _run(*args, devices, **extra):
  return subprocess.run(
    [sys.executable, *map(str, args)],
    cwd=ROOT,
    env=environment(devices, **extra),
    capture_output=True,
    text=True,
    timeout=300,
  )


@contextlib.contextmanager
def started(args, **options) -> Iterator[subprocess.Popen]:
  """The command, started; it is killed at the end if it still runs, so that no test waits for it.

  It hears SIGHUP, also where the tests were started by nohup, which ignores it.
  """
  before = signal.signal(signal.SIGHUP, signal.SIG_DFL) if hasattr(signal, 'SIGHUP') else None
  try:
    process = subprocess.Popen(
      [sys.executable, '-m', 'gdm_jax.main', *args], cwd=ROOT, env=environment(), **options
    )
  finally:
    if before is not None:
      signal.signal(signal.SIGHUP, before)
  with process:
    try:
      yield process
    finally:
      process.kill()


def metrics(workdir) -> list[dict]:
  """The rows of metrics.jsonl."""
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def steps_saved(workdir) -> list[int]:
  """The steps of the checkpoints that are there."""
  folder = workdir / 'checkpoints'
  return sorted(int(f.name) for f in folder.iterdir() if f.name.isdigit())


def arrays(workdir, step) -> list[np.ndarray]:
  """Every array of a checkpoint: EMA, parameters, optimizer state, step."""
  folder = workdir / 'checkpoints' / str(step)
  with ocp.StandardCheckpointer() as reader:
    trees = [reader.restore(folder / item) for item in ('ema', 'state')]
  return [np.asarray(x) for x in jax.tree.leaves(trees)]


def assert_same_bits(one, other):
  """Raises AssertionError unless both lists hold the same bits."""
  assert len(one) == len(other)
  for a, b in zip(one, other, strict=True):
    assert a.dtype == b.dtype
    assert a.tobytes() == b.tobytes()
