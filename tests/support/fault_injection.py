"""A run that is killed again and again ends like one that was left alone, to the bit.

  python -m tests.support.fault_injection --kills=20 [--seed=0]

Trains digits, tiny, unbroken; then in another workdir, where every start is killed at a random
moment: while it begins, while it trains, or while it writes a checkpoint; by SIGKILL, or by
SIGTERM, at which it saves. Whatever the moment, every checkpoint that is there is whole and sealed.
Exit code 1 where the ends differ.
"""

import argparse
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from gdm_jax.runtime import files
from tests.support import runs

STEPS = 30  # of the run, for every kill
SAVE_EVERY = 5
HALF_WRITTEN = '*.orbax-checkpoint-tmp*'
MOMENTS = ('beginning', 'training', 'training', 'writing', 'writing')
BEGINNING = 5.0  # seconds in which a start is killed early
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
  dice, steps = random.Random(seed), STEPS * kills
  unbroken, killed = folder / 'unbroken', folder / 'killed'
  _finish(unbroken, steps)
  for i in range(kills):
    print(f'kill {i + 1}: {_kill(killed, steps, dice)}', flush=True)
  _finish(killed, steps)

  found = []
  try:
    runs.assert_same_bits(runs.arrays(killed, steps), runs.arrays(unbroken, steps))
  except AssertionError:
    found.append(f'the parameters, their average or the optimizer state of step {steps}')
  rows = [[(row['step'], row['loss']) for row in runs.metrics(w)] for w in (killed, unbroken)]
  if rows[0] != rows[1]:
    found.append('metrics.jsonl')
  names = [_names(w) for w in (killed, unbroken)]
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


def _finish(workdir, steps):
  done = runs.command(*_arguments(workdir, steps))
  if done.returncode:
    raise SystemExit(f'ended with code {done.returncode}:\n{done.stderr}')


def _kill(workdir, steps, dice):
  """Starts the run and kills it at a random moment; in words, what came of it."""
  moment = dice.choice(MOMENTS)
  number = signal.SIGKILL if moment == 'writing' else dice.choice(list(CODES))
  checkpoints, said = workdir / 'checkpoints', workdir.with_name('said.txt')
  args = [sys.executable, '-m', 'gdm_jax.main', *_arguments(workdir, steps)]
  with (
    said.open('w') as file,
    subprocess.Popen(args, cwd=runs.ROOT, env=runs.environment(), stderr=file) as process,
  ):
    try:
      if moment == 'beginning':
        time.sleep(dice.uniform(0, BEGINNING))
      else:
        # Before that, metrics.jsonl still has the lines of the start before.
        until(lambda: 'compiling the training step' in said.read_text(), process)
        target = last_step(workdir) + dice.randint(1, STEPS // 2)
        until(lambda: last_step(workdir) >= target, process)
      if moment == 'writing':
        until(lambda: any(checkpoints.glob(HALF_WRITTEN)), process)
      time.sleep(dice.uniform(0, 0.03))
      process.send_signal(number)
      code = process.wait(120)
    finally:
      process.kill()
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


def _names(workdir):
  """What lies there; files that are called after their content are all the same."""
  return {re.sub('[0-9a-f]{32}', '*', str(f.relative_to(workdir))) for f in workdir.rglob('*')}


if __name__ == '__main__':
  sys.exit(main())
