"""Groupwise diffusion models from the command line.

  python -m gdm_jax.main --config=configs/digits.py [--mode=MODE] [--workdir=DIR]
                         [--dry_run] [--config.KEY=VALUE ...]
                         [--coordinator=HOST:PORT --num_processes=N --process_id=I]

  --config      a file with get_config(); configs/ holds one for every run of the README
  --config.KEY  overrides a field, e.g. --config.train.batch=64 --config.model.classes=10
                or --config.sampling.order=3,1,0,2; configs/default.py explains every field
  --mode        {modes}
  --workdir     default: runs/<config name>
  --dry_run     print the config, the parameters and the cost, and exit

Several machines run as one if each runs this command, with a --workdir that all see. SLURM and TPU
slices of GKE are recognised; --distributed asks jax for other TPU slices; elsewhere give
--coordinator (an address of process 0), --num_processes and --process_id.

To resume, run the same command again. Ctrl-C and SIGTERM save first. The modes after training
take the model as the workdir's config.json describes it.
Exit codes: 0 done, 1 the run failed, 2 bad input, 128 + n stopped by signal n.
"""

import os
import pathlib
import re
import runpy
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from gdm_jax import modes
from gdm_jax.runtime import machine
from gdm_jax.runtime.errors import GdmError, UsageError

LINGER_SECONDS = 3.0  # between the end of the other processes and that of process 0


class Command(NamedTuple):
  """A parsed command line; `cluster`: the fields of `distributed.Cluster`."""

  config: ConfigDict
  workdir: pathlib.Path
  mode: str
  dry_run: bool
  cluster: tuple[str, int, int, bool]


def main(argv: Sequence[str]) -> int:
  """Runs the command and returns its exit code."""
  if {'--help', '-h', '-help', '--helpfull'} & set(argv[1:]) or len(argv) == 1:
    print(_help())
    return 0
  # What orbax and asyncio log as errors they also raise, and an error is printed once, in one line.
  logging.set_verbosity(logging.FATAL)
  logging.logging.getLogger('asyncio').setLevel('CRITICAL')
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  try:
    command = parse(argv)
    prepare(command)
    return run(command, overridden(argv))
  except GdmError as error:
    return fail(error, error.exit_code)
  except KeyboardInterrupt:
    return fail('interrupted; run the same command again to resume', 130)


def run(command: Command, explicit: set[str]) -> int:
  """Runs a command whose processes have been joined; explicit: the keys that it overrides."""
  import jax

  from gdm_jax.modes import describe
  from gdm_jax.runtime.files import DISK_FULL
  from gdm_jax.training.workdir import adopt_config

  config, workdir, mode, dry_run, _ = command
  try:
    if modes.MODES[mode].trained:
      adopt_config(config, workdir, explicit)
    if dry_run:
      describe.run(config)
    else:
      modes.load(mode)(config, workdir)
  except (jax.errors.JaxRuntimeError, TimeoutError) as error:  # TimeoutError: orbax's, of a barrier
    if jax.process_count() == 1:
      raise
    return fail(f'the processes cannot continue together: {str(error).splitlines()[0]}', 1)
  except OSError as error:
    if error.errno not in DISK_FULL:
      raise
    return fail(
      f'{workdir}: {DISK_FULL[error.errno]}; the checkpoints that were saved before are intact. '
      'Make room, and run the same command again',
      1,
    )
  return 0


def parse(argv: Sequence[str]) -> Command:
  """Parses a command line. Raises UsageError."""
  file, others = _config_file(argv)
  # ml_collections wants the file before the overrides, and would join tuples that are given twice.
  last = {a.split('=')[0] if '=' in a else i: a for i, a in enumerate(others)}
  argv = [argv[0], f'--config={file}', *last.values()]
  if (root := str(file.resolve().parent.parent)) not in sys.path:
    sys.path.append(root)  # configs import each other
  values = flags.FlagValues()
  config = config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=argv)
  workdir = flags.DEFINE_string('workdir', None, 'Output folder.', flag_values=values)
  mode = flags.DEFINE_enum('mode', 'train', list(modes.MODES), 'What to do.', flag_values=values)
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
    raise UsageError(_bad_override(file, argv, error)) from None
  if rest:
    raise UsageError(f'{rest[0]!r} is no flag; overrides look like --config.train.batch=64')
  if (devices := config.value.machine.cpu_devices) < 1:
    raise UsageError(f'machine.cpu_devices = {devices} must be at least 1')
  _empty_tuples(config.value)
  folder = pathlib.Path(workdir.value or pathlib.Path('runs') / file.stem)
  cluster = tuple(flag.value for flag in cluster)
  return Command(config.value, folder, mode.value, dry_run.value, cluster)


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


def _bad_override(file, argv, error):
  # ml_collections names only the wrong part of a key, as the first word.
  text = ' '.join(map(str, error.args))
  wrong = (re.findall(r'\w+', text) or [''])[0]
  for argument in argv:
    key = argument.split('=')[0].removeprefix('--config.')
    if argument.startswith('--config.') and wrong in key.split('.'):
      elsewhere = [k for k in _keys(file) if k.split('.')[-1] == wrong]
      close = re.search(r'Did you mean "(\w+)"', text)
      hints = elsewhere or ([close[1]] if close else [])
      hint = f'did you mean {" or ".join(hints)}?' if hints else 'configs/default.py lists them'
      return f'{argument}: no such key; {hint}'
  return text


def _keys(file, config=None, prefix=''):
  """The dotted keys of a config file."""
  if config is None:
    config = runpy.run_path(str(file))['get_config']()
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      yield from _keys(file, value, f'{prefix}{name}.')
    else:
      yield prefix + name


def _empty_tuples(config):
  # `--config.sampling.labels=` reads as a tuple of one empty string.
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      _empty_tuples(value)
    elif value == ('',):
      config[key] = ()


def prepare(command: Command):
  """Sets up the machine and joins the other processes; call it before jax does anything.

  Raises ConfigError if the other processes do not come.
  """
  c = command.config.machine
  machine.choose_convolutions(c.cpu_devices)
  machine.split_cpu(c.cpu_devices)
  import jax

  from gdm_jax.runtime import distributed

  if c.compilation_cache:
    folder = pathlib.Path(c.compilation_cache).expanduser()
    jax.config.update('jax_compilation_cache_dir', str(folder))

  distributed.join(distributed.Cluster(*command.cluster))
  if jax.distributed.is_initialized():
    sys.excepthook = _leave_uncaught


def overridden(argv: Sequence[str]) -> set[str]:
  """The config's keys that a command line overrides."""
  matches = (re.match(r'--?config\.([\w.]+)', argument) for argument in argv)
  return {match[1] for match in matches if match}


def fail(error: Exception | str, code: int) -> int:
  """Prints an error in one line and returns the exit code."""
  prefix = 'error: ' if code < 128 else ''  # a signal is no error
  print(f'{prefix}{error}', file=sys.stderr)
  return code


def leave(code: int):
  """Exits; without waiting for the other processes if one of them may have died.

  Process 0 goes last: jax aborts the others when it is gone, before they print why they stop.
  """
  jax = sys.modules.get('jax')  # not imported for --help
  if code and jax and jax.process_count() > 1:
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:
      time.sleep(LINGER_SECONDS)
    os._exit(code)
  sys.exit(code)


def _leave_uncaught(*error):
  """Exception hook for unexpected errors: a normal exit would block on the other processes."""
  sys.__excepthook__(*error)
  leave(1)


def _help():
  indent = ' ' * 16
  lines = []
  for name, mode in modes.MODES.items():
    first, *rest = mode.help.splitlines()
    lines += [f'{name + ":":12}{first}', *(' ' * 12 + line for line in rest)]
  return __doc__.strip().format(modes=f'\n{indent}'.join(lines))


if __name__ == '__main__':
  machine.use_huge_pages()
  leave(main(sys.argv))
