"""Groupwise diffusion models from the command line.

  python -m gdm_jax.main --config=configs/digits.py [--mode=MODE] [--workdir=DIR]
                         [--dry_run] [--config.KEY=VALUE ...]
                         [--coordinator=HOST:PORT --num_processes=N --process_id=I]

  --config      a file with get_config(); configs/ holds one for every run of the README
  --config.KEY  overrides a field, e.g. --config.train.batch=64 --config.model.channels=32
                or --config.sampling.order=3,1,0,2; configs/default.py explains every field
  --mode        train (default): train, or resume where this workdir stopped; leaves samples.png,
                  generation.gif, loss.png, metrics.jsonl, config.json and checkpoints/
                sample: write an image for each of config.sampling.seeds (such as 0-49999) to
                  samples/; run again, it makes those that are missing
                complete: keep the known groups of config.complete.images (by number, or from a
                  mask) and generate the rest, to completed/
                edit: encode the pictures of config.edit.images, swap, interpolate or vary bands of
                  their latents, and decode, to edited/
                likelihood: log p(x) of the data, in all and group by group, to likelihood/
                evaluate: FID, or a Frechet distance of other config.evaluation.features, of
                  config.evaluation.seeds, a row in evaluation.csv
                reference: the statistics of real images that it compares with, to a file
  --workdir     default: runs/<config name>
  --dry_run     print the config, the parameters and the cost, and exit

Several machines run as one where each runs this command, with a --workdir that all see. SLURM and
TPU slices of GKE are recognised; --distributed asks jax for other TPU slices, and elsewhere
--coordinator (an address of process 0), --num_processes and --process_id say it.

To resume, run the same command again. Ctrl-C and SIGTERM save first. The modes after training
take the model as the workdir's config.json describes it.
Exit codes: 0 done, 1 training failed, 2 bad input, 128 + n stopped by signal n.
"""

import os
import pathlib
import re
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from gdm_jax.runtime import distributed, machine

MODES = ('train', 'sample', 'complete', 'edit', 'likelihood', 'evaluate', 'reference')
LINGER = 3.0  # seconds between the end of the other processes and that of process 0


class UsageError(ValueError):
  """A command line that cannot be understood."""


class Command(NamedTuple):
  """What a command line asks for; `cluster`: the fields of `distributed.Cluster`."""

  config: ConfigDict
  workdir: pathlib.Path
  mode: str
  dry_run: bool
  cluster: tuple[str, int, int, bool]


def main(argv: Sequence[str]) -> int:
  """Runs the command and returns its exit code."""
  if {'--help', '-h', '-help', '--helpfull'} & set(argv[1:]) or len(argv) == 1:
    print(__doc__.strip())
    return 0
  # What orbax and asyncio log as errors they also raise, once, to be said in one line.
  logging.set_verbosity(logging.FATAL)
  logging.logging.getLogger('asyncio').setLevel('CRITICAL')
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  try:
    command = parse(argv)
  except UsageError as error:
    return _fail(error, 2)

  # After parsing, so that a mistyped flag and --help answer at once.
  import jax

  from gdm_jax.modes import complete, describe, edit, evaluate, likelihood, sample, train
  from gdm_jax.runtime.errors import (
    ConfigError,
    DataError,
    DivergedError,
    Interrupted,
    TrainingError,
  )
  from gdm_jax.runtime.files import FULL
  from gdm_jax.training.checkpoint import adopt_model

  modes = {
    'train': train.run,
    'sample': sample.run,
    'complete': complete.run,
    'edit': edit.run,
    'likelihood': likelihood.run,
    'evaluate': evaluate.run,
    'reference': evaluate.make_reference,
  }
  try:
    prepare(command)
    config, workdir, mode, dry_run, _ = command
    if mode != 'train':
      adopt_model(config, workdir, overridden(argv))
    if dry_run:
      describe.run(config)
    else:
      modes[mode](config, workdir)
  except (ConfigError, DataError) as error:
    return _fail(error, 2)
  except (TrainingError, DivergedError) as error:
    return _fail(error, 1)
  except Interrupted as stop:
    print(stop, file=sys.stderr)
    return 128 + stop.signal
  except (jax.errors.JaxRuntimeError, TimeoutError) as error:  # orbax's, of a barrier
    if jax.process_count() == 1:
      raise
    return _fail(f'the processes cannot go on together: {str(error).splitlines()[0]}', 1)
  except OSError as error:
    if error.errno not in FULL:
      raise
    return _fail(
      f'{command.workdir}: {FULL[error.errno]}; the checkpoints that were saved whole are as they '
      'were. Make room, and run the same command again',
      1,
    )
  except KeyboardInterrupt:
    print('interrupted; run the same command again', file=sys.stderr)
    return 130
  return 0


def parse(argv: Sequence[str]) -> Command:
  """What a command line asks for. Raises UsageError."""
  file, others = _config_file(argv)
  # ml_collections wants the file before the overrides, and would join tuples that are given twice.
  last = {a.split('=')[0] if '=' in a else i: a for i, a in enumerate(others)}
  argv = [argv[0], f'--config={file}', *last.values()]
  sys.path.append(str(file.resolve().parent.parent))  # configs import each other
  values = flags.FlagValues()
  config = config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=argv)
  workdir = flags.DEFINE_string('workdir', None, 'Output folder.', flag_values=values)
  mode = flags.DEFINE_enum('mode', 'train', MODES, 'What to do.', flag_values=values)
  dry_run = flags.DEFINE_bool('dry_run', False, 'Only describe.', flag_values=values)
  cluster = (
    flags.DEFINE_string('coordinator', '', 'Address of process 0.', flag_values=values),
    flags.DEFINE_integer('num_processes', 0, 'How many there are.', flag_values=values),
    flags.DEFINE_integer('process_id', -1, 'Which one this is.', flag_values=values),
    flags.DEFINE_bool('distributed', False, 'Ask jax which it is.', flag_values=values),
  )
  try:
    rest = values(argv)[1:]
  except (SyntaxError, ImportError, NameError) as error:
    raise UsageError(f'--config={file} cannot be read: {error}') from None
  except flags.UnrecognizedFlagError as error:
    raise UsageError(str(error)) from None
  except flags.Error as error:
    raise UsageError(' '.join(str(error).split())) from None
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UsageError(_bad_override(argv, error)) from None
  if rest:
    raise UsageError(f'{rest[0]!r} is no flag; overrides look like --config.train.batch=64')
  if config.value.cpu_devices < 1:
    raise UsageError(f'cpu_devices = {config.value.cpu_devices} must be at least 1')
  _empty_tuples(config.value)
  folder = pathlib.Path(workdir.value or pathlib.Path('runs') / file.stem)
  cluster = tuple(flag.value for flag in cluster)
  return Command(config.value, folder, mode.value, dry_run.value, cluster)


def prepare(command: Command):
  """Joins the other processes, splits the CPU, and opens the cache of compiled programs.

  Call it before jax does anything. Raises ConfigError where the other processes do not come.
  """
  machine.choose_convolutions(command.config.cpu_devices)
  machine.split_cpu(command.config.cpu_devices)
  import jax

  from gdm_jax.runtime import distributed

  if command.config.compilation_cache:
    folder = pathlib.Path(command.config.compilation_cache).expanduser()
    jax.config.update('jax_compilation_cache_dir', str(folder))

  distributed.join(distributed.Cluster(*command.cluster))
  if jax.distributed.is_initialized():
    sys.excepthook = _leave_uncaught


def _empty_tuples(config):
  # `--config.model.attention=` reads as a tuple of one empty string.
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      _empty_tuples(value)
    elif value == ('',):
      config[key] = ()


def _config_file(argv):
  """The config's file, and the arguments without it."""
  for i, argument in enumerate(argv):
    if match := re.fullmatch(r'--?config(?:=(.*))?', argument):
      following = argv[i + 1 : i + 2] if match[1] is None else []
      file = pathlib.Path(match[1] or ''.join(following))
      if not file.is_file():
        raise UsageError(f'--config={file}: no such file; see configs/')
      return file, [*argv[1:i], *argv[i + 1 + len(following) :]]
  raise UsageError('--config is missing, e.g. --config=configs/digits.py (--help explains)')


def overridden(argv: Sequence[str]) -> set[str]:
  """The keys that a command line overrides."""
  found = (re.match(r'--?config\.([\w.]+)', argument) for argument in argv)
  return {match[1] for match in found if match}


def _bad_override(argv, error):
  # ml_collections names only the wrong part of a key, as the first word.
  text = ' '.join(map(str, error.args))
  wrong = (re.findall(r'\w+', text) or [''])[0]
  for argument in argv:
    parts = argument.split('=')[0].removeprefix('--config.').split('.')
    if argument.startswith('--config.') and wrong in parts:
      hint = re.search(r'Did you mean "(\w+)"', text)
      return f'{argument}: no such key; ' + (
        f'did you mean {hint[1]}?' if hint else 'configs/default.py lists them'
      )
  return text


def _fail(error, code):
  print(f'error: {error}', file=sys.stderr)
  return code


def leave(code: int):
  """Ends the program; soon where other processes may be gone, since jax would wait for them.

  Process 0 goes last: jax aborts the others when it is gone, before they say why they stop.
  """
  jax = sys.modules.get('jax')  # --help is without
  if code and jax and jax.process_count() > 1:
    sys.stdout.flush()
    sys.stderr.flush()
    if distributed.is_primary():
      time.sleep(LINGER)
    os._exit(code)
  sys.exit(code)


def _leave_uncaught(*error):
  """Ends a process by an error that nobody foresaw: the usual end would wait for the others."""
  sys.__excepthook__(*error)
  leave(1)


if __name__ == '__main__':
  machine.use_huge_pages()
  leave(main(sys.argv))
