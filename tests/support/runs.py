"""Runs of the real command, shrunk until a step takes milliseconds."""

import json
import os
import pathlib
import subprocess
import sys

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
  '--config.model.mlp.width=8',
  '--config.model.mlp.depth=1',
  f'--config.train.batch={BATCH}',
  '--config.train.ramp=64',
  f'--config.log.every={BATCH}',
  '--config.log.grid=2',
  '--config.sampling.steps=4',
  '--config.sampling.batch=8',
)


def arguments(workdir, *overrides, steps=4, config='digits', save_every=2):
  """The arguments of a tiny run of `steps` steps."""
  return [
    f'--config={ROOT}/configs/{config}.py',
    f'--workdir={workdir}',
    *TINY,
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
