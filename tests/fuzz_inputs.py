"""Feeds absurd inputs to every mode but explore and export: none may end in a traceback.

  python -m tests.fuzz_inputs [--inputs=500] [--seed=0] [--only=KIND]

Every input ends in exit code 0 (it was harmless) or in one line that begins with 'error: ' and exit
code 1 or 2. All that reads inputs is real; what only computes (steps, samples) is left out, so that
500 inputs take four minutes on two cores. Input i of a seed does not depend on --inputs.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from unittest import mock

import numpy as np
from flax.traverse_util import flatten_dict
from PIL import Image

from configs import default
from gdm_jax import main
from gdm_jax.evaluation.evaluator import Evaluator
from gdm_jax.evaluation.summary import Scores
from gdm_jax.generation.generator import Generator
from gdm_jax.training import loop
from gdm_jax.training.preview import Preview
from tests import conftest  # noqa: F401 (the environment of tests, before jax is imported)
from tests.support import runs

PICTURES = ('png', 'jpg', 'bmp', 'gif', 'tiff', 'webp', 'ppm')
VALUES = (
  *('', '0', '-1', '1', '3', '7.5', '-0.5', '1e9', 'nan', 'inf', '-inf', 'x', 'None', 'True'),
  *('()', '(0,)', '(1,)', '(-1,)', '(1.5,)', '(1,1)', '(0,1)', '(3,2,1,0)', "('a',)", '((1,),)'),
  *('9' * 20, '2**40', '0-3', '5-2', '1,,2', 'a,b', '..', '/', '~', '$HOME', '*', '\n', '🦆'),
)
"""What any key of the config is set to."""


def damaged(dice: random.Random, file: pathlib.Path):
  """Flips a byte, cuts the tail, empties the file, fills it with noise, or takes it away."""
  content = bytearray(file.read_bytes())
  place = dice.randrange(len(content)) if content else 0
  match dice.choice(('flip', 'flip', 'flip', 'cut', 'cut', 'empty', 'noise', 'remove', 'folder')):
    case 'flip' if content:
      content[place] ^= dice.choice((0x01, 0x80, 0xFF))
      file.write_bytes(content)
    case 'cut':
      file.write_bytes(content[:place])
    case 'noise':
      file.write_bytes(dice.randbytes(len(content)))
    case 'remove':
      file.unlink()
    case 'folder':
      file.unlink()
      file.mkdir()
    case _:
      file.write_bytes(b'')


class Inputs:
  """The kinds of inputs: each method makes one in a folder and returns the command's arguments."""

  def __init__(self, trained: pathlib.Path):
    """trained: a workdir that every input gets a copy of."""
    self._trained = trained

  def _arguments(self, here, *args):
    if not (here / 'run').exists():
      shutil.copytree(self._trained, here / 'run')
    return runs.arguments(here / 'run', *args, steps=8)

  def array(self, dice, here):
    """An npz or npy file of any dtype, range and shape, perhaps damaged."""
    rng = np.random.default_rng(dice.randrange(2**32))
    shape = dice.choice(
      [(20, 8, 8, 1), (20, 8, 8), (20,), (), (0, 8, 8, 1), (20, 8, 8, 3), (1, 8, 8, 1)]
    )
    x = rng.normal(0, dice.choice([0.5, 1, 100]), shape)
    x = np.asarray(x).astype(dice.choice(['f4', 'f8', 'f2', 'u1', 'i8', 'c8', '?', 'U3', 'i1']))
    if x.size and x.dtype.kind == 'f' and dice.random() < 0.3:
      x.flat[dice.randrange(x.size)] = dice.choice([np.nan, np.inf])
    labels = dice.choice(
      [
        np.arange(20) % 2,
        np.arange(20) - 1,
        np.arange(20) / 7,
        np.arange(3),
        np.array(['a'] * 20),
        np.full(20, np.nan),
        np.zeros((20, 1)),
        np.zeros(20, '?'),
        np.arange(20) * 10**9,
      ]
    )
    file = here / dice.choice(['x.npz', 'x.npy', 'noname'])
    with file.open('wb') as f:
      if file.suffix == '.npy':
        np.save(f, x)
      else:
        np.savez(f, **{dice.choice(['x', 'x', 'x', 'y']): x, 'label': labels})
    if dice.random() < 0.5:
      damaged(dice, file)
    return runs.arguments(here / 'new', f'--config.data.name=npz:{file}', steps=1)

  def _picture(self, dice, file):
    mode = dice.choice(['L', 'RGB', 'RGBA', 'P', '1', 'I;16', 'CMYK', 'LA', 'I', 'F'])
    size = dice.choice([(8, 8), (1, 1), (9, 200), (64, 8)])
    bits = dice.randbytes(size[0] * size[1] * 4)
    file = file.with_suffix('.' + dice.choice(PICTURES))
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
      Image.frombytes('RGBA', size, bits).convert(mode).save(file)
    except (OSError, ValueError, KeyError):  # a mode that the format does not know
      Image.frombytes('RGBA', size, bits).convert('RGB').save(file)
    if dice.random() < 0.5:
      damaged(dice, file)
    return file

  def pictures(self, dice, here):
    """A folder of pictures of any format, of which some are damaged."""
    for i in range(6):
      self._picture(dice, here / 'data' / dice.choice(['', 'a', 'b', '.c']) / f'{i}')
    extra = dice.choice(
      [[], ['--config.data.skip_broken=True'], ['--config.machine.memory_gib=1e-9']]
    )
    return runs.arguments(here / 'new', f'--config.data.name=folder:{here}/data', *extra, steps=1)

  def edit(self, dice, here):
    """Pictures to edit."""
    files = [self._picture(dice, here / 'in' / name) for name in ('a', 'b')]
    operation = dice.choice(['reconstruct', 'mix', 'interpolate', 'traverse', 'vary'])
    where = dice.choice([here / 'in', f'{files[0]},{files[1]}', f'{here}/in/*'])
    options = (f'--config.edit.images={where}', f'--config.edit.operation={operation}')
    return self._arguments(here, '--mode=edit', *options)

  def complete(self, dice, here):
    """Pictures to complete, and a mask."""
    self._picture(dice, here / 'in' / 'a')
    mask = self._picture(dice, here / 'mask')
    given = dice.choice([f'--config.complete.mask={mask}', '--config.complete.groups=0,1'])
    return self._arguments(here, '--mode=complete', f'--config.complete.images={here}/in', given)

  def label_map(self, dice, here):
    """A grouping from a file."""
    file = here / 'labels.npz'
    labels = np.array([dice.randrange(4) for _ in range(64)]).reshape(8, 8)
    if dice.random() < 0.5:
      np.savez(file, labels=labels.astype(dice.choice(['u1', 'f4', 'i8', 'U2'])))
    else:
      file = self._picture(dice, here / 'labels')
    if file.is_file() and dice.random() < 0.3:
      damaged(dice, file)
    key = '--config.strategies.main.grouping'
    return runs.arguments(here / 'new', f'{key}=file:{file}', config='default', steps=1)

  def idx(self, dice, here):
    """Files in the IDX format."""
    for kind, shape in (('images-idx3', (20, 8, 8)), ('labels-idx1', (20,))):
      header = bytes([0, 0, 8, len(shape)]) + b''.join(n.to_bytes(4, 'big') for n in shape)
      values = bytes(i % 7 for i in range(int(np.prod(shape))))
      (here / f'train-{kind}-ubyte').write_bytes(header + values)
    damaged(dice, dice.choice(sorted(here.iterdir())))
    return runs.arguments(here / 'new', f'--config.data.name=idx:{here}', steps=1)

  def tfds(self, dice, here):
    """A data set that TFDS prepared."""
    shutil.copytree(runs.ROOT / 'tests' / 'golden' / 'tfds', here / 'tfds')
    damaged(dice, dice.choice([f for f in sorted((here / 'tfds').rglob('*')) if f.is_file()]))
    where = ('--config.data.name=tfds:cifar10', f'--config.machine.data_dir={here}/tfds')
    return runs.arguments(here / 'new', *where, '--config.data.shape=(32,32,3)', steps=1)

  def workdir(self, dice, here):
    """A file of a run, of its samples, of what its evaluation keeps, or of a checkpoint."""
    args = self._arguments(here)
    files = [f for f in sorted((here / 'run').rglob('*')) if f.is_file()]
    small = [f for f in files if 'checkpoints' not in f.parts]
    damaged(dice, dice.choice(small if dice.random() < 0.8 else files))
    mode = dice.choice(['train', 'sample', 'evaluate', 'likelihood', 'reference'])
    return [*args, f'--mode={mode}', *EVALUATED]

  def overrides(self, dice, here):
    """Any value for any key of the config, in any mode."""
    keys = sorted(flatten_dict(default.get_config().to_dict(), sep='.'))
    chosen = [
      f'--config.{dice.choice(keys)}={dice.choice(VALUES)}' for _ in range(dice.choice([1, 1, 2]))
    ]
    mode = dice.choice(
      ['train', 'sample', 'evaluate', 'likelihood', 'reference', 'edit', 'complete']
    )
    given = {
      'edit': [f'--config.edit.images={here}/a.png'],
      'complete': [f'--config.complete.images={here}/a.png', '--config.complete.groups=0,'],
    }
    Image.new('L', (8, 8), 99).save(here / 'a.png')
    dry = ['--dry_run'] if dice.random() < 0.1 else []
    return [
      *self._arguments(here),
      f'--mode={mode}',
      *given.get(mode, []),
      *EVALUATED,
      *chosen,
      *dry,
    ]

  def amounts(self, dice, here):
    """Numbers that no machine has the memory or the time for."""
    tree = flatten_dict(default.get_config().to_dict(), sep='.')
    keys = [key for key, value in tree.items() if type(value) in (int, float)]
    # A network of a thousand million layers is traced for years, and no run ends a second later.
    keys = sorted({*keys} - {'model.ddpmpp.blocks', 'model.mlp.depth'})
    given = f'--config.{dice.choice(keys)}={10 ** dice.choice([9, 10, 12, 18])}'
    shape = dice.choice([[], [], ['--config.data.shape=(1000000,1000000,1)']])
    mode = dice.choice(['train', 'sample', 'evaluate'])
    return [*self._arguments(here), f'--mode={mode}', *EVALUATED, given, *shape]

  def flags(self, dice, here):
    """Command lines that are none."""
    pool = [
      *('--config', '--config=', '--config=nowhere.py', f'--config={here}', '--config.=', '--='),
      *(
        '--workdir',
        '--workdir=',
        f'--workdir={here}/\0',
        '--workdir=/proc/x',
        '--workdir=/dev/null',
      ),
      *('--mode=', '--mode=x', '--x', 'x', '-', '--dry_run=x', '--config.x=1', '--config.train=1'),
      *('--config.train.batch', '--config.train.batch=16=3'),
      *('--coordinator=a', '--num_processes=x', '--process_id=-3'),
    ]
    chosen = dice.sample(pool, dice.choice([1, 2, 3]))
    return dice.choice([[*self._arguments(here), *chosen], chosen])


EVALUATED = (
  '--config.evaluation.features=pixels',
  '--config.evaluation.seeds=0-19',
  '--config.likelihood.num=4',
  '--config.sampling.seeds=0-3',
)
KINDS: dict[str, Callable] = {
  name: method for name, method in vars(Inputs).items() if not name.startswith('_')
}


@contextlib.contextmanager
def without_computing():
  """Leaves out what computes and reads no input."""

  def iterate(self, params, table, seeds, *_, **__):
    yield from [self._latents(np.asarray(seeds, np.uint32))] * 2

  def unchanged(self, params, table, x, batch, label=-1):
    return x

  scores = Scores(**dict.fromkeys(Scores.__dataclass_fields__, 0))
  with contextlib.ExitStack() as stack:
    for owner, name, stand_in in (
      (loop, 'train', lambda config, system, state, *_: state),
      (Preview, 'finish', lambda *_: True),
      (Generator, 'iterate', iterate),
      (Generator, 'encode', unchanged),
      (Generator, 'decode', unchanged),
      (Evaluator, '__call__', lambda *_: scores),
    ):
      stack.enter_context(mock.patch.object(owner, name, stand_in))
    yield


def attempt(args: list[str]) -> tuple[int | str, str]:
  """The exit code, or the traceback; and what was printed on stderr."""
  err = io.StringIO()
  with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
    try:
      code = main.main(['', *args])
    except SystemExit as stop:
      code = stop.code
    except BaseException:
      code = traceback.format_exc()
  return code, err.getvalue()


def verdict(code: int | str, said: str) -> str:
  """What is wrong with an ending; '' if nothing is."""
  if isinstance(code, str) or 'Traceback' in said:
    return f'{code}\n{said}'
  if code not in (0, 1, 2):
    return f'exit code {code}: {said}'
  errors = [line for line in said.splitlines() if line.startswith('error: ')]
  if code and len(errors) != 1:
    return f'exit code {code} with {len(errors)} lines of error: {said}'
  return ''


def run(inputs: int, seed: int, only: str = '') -> collections.Counter:
  """Tries that many inputs; prints those that fail, and returns how many there were by ending."""
  endings = collections.Counter()
  with tempfile.TemporaryDirectory() as folder, without_computing_after(folder) as kinds:
    names = [only] if only else list(KINDS)
    for i in range(inputs):
      dice = random.Random(f'{seed} {i}')
      name, here = dice.choice(names), pathlib.Path(folder) / str(i)
      here.mkdir()
      args = getattr(kinds, name)(dice, here)
      os.chdir(here)
      code, said = attempt(args)
      if wrong := verdict(code, said):
        print(f'input {i} ({name}): {" ".join(args)}\n{wrong}', flush=True)
      endings['wrong' if wrong else 'harmless' if code == 0 else 'one line'] += 1
      shutil.rmtree(here)
  return endings


@contextlib.contextmanager
def without_computing_after(folder: str):
  """Trains, samples and evaluates a tiny model, and then leaves computing out."""
  trained, here = pathlib.Path(folder) / 'trained', os.getcwd()
  args = runs.arguments(trained, steps=8)
  for mode in ('train', 'sample', 'evaluate'):
    code, said = attempt([*args, f'--mode={mode}', *EVALUATED])
    assert code == 0, (code, said)
  try:
    with without_computing():
      yield Inputs(trained)
  finally:
    os.chdir(here)


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--inputs', type=int, default=500)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--only', default='', choices=['', *KINDS])
  options = parser.parse_args()
  start = time.monotonic()
  found = run(options.inputs, options.seed, options.only)
  print(json.dumps(dict(found)), f'in {time.monotonic() - start:.0f} s')
  sys.exit(bool(found['wrong']))
