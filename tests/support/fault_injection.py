"""A run that is killed again and again ends like one that was left alone, to the bit.

  python -m tests.support.fault_injection --kills=20 [--seed=0]

Trains digits, tiny, unbroken; then in another workdir, where every start is killed at a random
moment: while it begins, while it trains, while it writes a checkpoint, or before a small file gets
its name; by SIGKILL, or by SIGTERM, at which it saves. Whatever the moment, every checkpoint there
is whole and sealed. Of every four kills one is of two jobs that sample into one folder, half
of their seeds in common; in the end every sample is there, and like that of an unbroken job.
Exit code 1 where the ends differ.
"""

import argparse
import contextlib
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from gdm_jax import main as command
from gdm_jax.runtime import files
from tests import conftest  # noqa: F401 (the environment of tests, before jax is imported)
from tests.support import runs

STEPS = 30  # of the run, for every kill
SAVE_EVERY = 5
UNNAMED = f'.*{files.TEMPORARY}'  # small files that are being written
HALF_WRITTEN = '*.orbax-checkpoint-tmp*'
MOMENTS = ('beginning', 'training', 'training', 'writing', 'writing', 'renaming')
BEGINNING = 5.0  # seconds in which a start is killed early
JOBS = ('0-59', '30-89')  # seeds
SAMPLING = 8.0  # seconds within which a job of them is killed
CODES = {signal.SIGKILL: (-9,), signal.SIGTERM: (-15, 128 + 15)}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--seed', type=int, default=0)
  given = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    found = differences(pathlib.Path(folder), given.kills, given.seed)
  for difference in found:
    print(f'differs: {difference}')
  steps = STEPS * given.kills
  print(f'{given.kills} kills in {steps} steps: {len(found)} differences from an unbroken run')
  return int(bool(found))


def differences(folder: pathlib.Path, kills: int, seed: int) -> list[str]:
  """Trains in folder/unbroken and folder/killed; in what they differ in the end."""
  of_jobs = kills // 4
  dice, steps = random.Random(seed), STEPS * (kills - of_jobs)
  unbroken, killed = folder / 'unbroken', folder / 'killed'
  _finish(_arguments(unbroken, steps))
  for i in range(kills - of_jobs):
    print(f'kill {i + 1}: {_kill(killed, steps, dice)}', flush=True)
  _finish(_arguments(killed, steps))
  for i in range(of_jobs):
    print(f'kill {kills - of_jobs + i + 1}: {_kill_a_job(killed, steps, dice)}', flush=True)
  for seeds in JOBS:
    _finish(_sampling(killed, steps, seeds))
  _finish(_sampling(unbroken, steps, '0-89'))

  found, both = [], (killed, unbroken)
  try:
    runs.assert_same_bits(runs.arrays(killed, steps), runs.arrays(unbroken, steps))
  except AssertionError:
    found.append(f'the parameters, their average or the optimizer state of step {steps}')
  rows = [[(row['step'], row['loss']) for row in runs.metrics(w)] for w in both]
  if rows[0] != rows[1]:
    found.append('metrics.jsonl')
  pairs = [[w / 'samples' / f'{seed:06d}.png' for w in both] for seed in range(90)]
  found += [str(pair[0]) for pair in pairs if not _look_alike(*pair)]
  names = [_names(w) for w in both]
  return found + [f'{name} is in one workdir alone' for name in sorted(names[0] ^ names[1])]


def until(happened: Callable[[], bool], *processes: subprocess.Popen, seconds: float = 120):
  """Waits until it happened. The processes must go on so long."""
  deadline = time.monotonic() + seconds
  while not happened():
    for process in processes:
      assert process.poll() is None, f'ended too early, with code {process.returncode}'
    if time.monotonic() > deadline:
      raise TimeoutError
    time.sleep(0.002)


def last_step(workdir: pathlib.Path) -> int:
  """The last step of which metrics.jsonl has a whole line, or 0."""
  file = workdir / 'metrics.jsonl'
  lines = file.read_text().rpartition('\n')[0] if file.exists() else ''
  return int((re.findall(r'"step": (\d+)', lines) or [0])[-1])


def _arguments(workdir, steps):
  return runs.arguments(workdir, steps=steps, save_every=SAVE_EVERY)


def _sampling(workdir, steps, seeds):
  return [*_arguments(workdir, steps), '--mode=sample', f'--config.sampling.seeds={seeds}']


def _finish(args):
  if code := command.main(['', *args]):  # here: only what is killed needs a process of its own
    raise SystemExit(f'ended with code {code}')


def _kill(workdir, steps, dice):
  """Starts the run and kills it at a random moment; in words, what came of it."""
  moment = dice.choice(MOMENTS)
  number = dice.choice(list(CODES)) if moment in ('beginning', 'training') else signal.SIGKILL
  checkpoints, said = workdir / 'checkpoints', workdir.with_name('said.txt')
  args = _arguments(workdir, steps)
  with said.open('w') as file, runs.started(args, stderr=file) as process:
    if moment == 'beginning':
      time.sleep(dice.uniform(0, BEGINNING))
    elif moment == 'renaming':
      before = {*workdir.glob(UNNAMED)}
      # Such a file is there for so short a time that a busy machine may never see it.
      with contextlib.suppress(TimeoutError):
        until(lambda: {*workdir.glob(UNNAMED)} - before, process, seconds=20)
    else:
      # Before that, metrics.jsonl still has the lines of the start before.
      until(lambda: 'compiling the training step' in said.read_text(), process)
      target = last_step(workdir) + dice.randint(1, STEPS // 2)
      until(lambda: last_step(workdir) >= target, process)
    if moment == 'writing':
      until(lambda: any(checkpoints.glob(HALF_WRITTEN)), process)
    if moment != 'renaming':
      time.sleep(dice.uniform(0, 0.03))
    process.send_signal(number)
    code = process.wait(120)
  if code not in CODES[number]:
    raise SystemExit(f'{number.name} at its {moment}: code {code}\n{said.read_text()}')
  saved = runs.steps_saved(workdir) if checkpoints.exists() else []
  for step in saved:
    if wrong := files.find_damage(checkpoints / str(step)):
      raise SystemExit(f'{number.name} at its {moment}: checkpoint {step} is not whole: {wrong}')
  left = ', and one half written' if any(checkpoints.glob(HALF_WRITTEN)) else ''
  return (
    f'{number.name} when {moment}, after step {last_step(workdir)}; exit code {code}, newest '
    f'checkpoint {max(saved, default="none")}{left}'
  )


def _kill_a_job(workdir, steps, dice):
  """Starts two jobs that sample into one folder and kills one; in words, which one."""
  number, job = dice.choice(list(CODES)), dice.randrange(2)
  with contextlib.ExitStack() as stack:
    jobs = [
      stack.enter_context(runs.started(_sampling(workdir, steps, seeds), stderr=subprocess.DEVNULL))
      for seeds in JOBS
    ]
    time.sleep(dice.uniform(0, SAMPLING))
    jobs[job].send_signal(number)
    codes = [process.wait(120) for process in jobs]
  if codes[1 - job] or codes[job] not in (0, *CODES[number]):
    raise SystemExit(f'{number.name} to job {job}: codes {codes}')
  there = len(list((workdir / 'samples').glob('0*.png')))
  return f'{number.name} to job {job} of two that sample; exit codes {codes}, {there} samples'


def _look_alike(*pair):
  """Whether both pictures are there, and alike; a batch of other images may round a pixel up."""
  if not all(file.exists() for file in pair):
    return False
  a, b = (np.asarray(Image.open(file), np.int32) for file in pair)
  return np.abs(a - b).max() <= 1


def _names(workdir):
  """What lies there; files that are called after their content are all the same.

  Temporary files stay for an hour: they may be another job's.
  """
  names = (str(f.relative_to(workdir)) for f in workdir.rglob('*') if f.suffix != files.TEMPORARY)
  return {re.sub('[0-9a-f]{32}', '*', name) for name in names}


if __name__ == '__main__':
  sys.exit(main())
