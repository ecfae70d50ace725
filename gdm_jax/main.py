"""Groupwise diffusion models from the command line.

  python -m gdm_jax.main --config=configs/digits.py [--mode=MODE] [--workdir=DIR]
                         [--dry_run] [--config.KEY=VALUE ...]
                         [--coordinator=HOST:PORT --num_processes=N --process_id=I]
  python -m gdm_jax.main --model=NAME|FOLDER --mode=MODE ...

  --config      a file with get_config(); configs/ holds one for every run of the README
  --config.KEY  overrides a field, e.g. --config.train.batch=64 --config.model.classes=10
                or --config.sampling.order=3,1,0,2; configs/default.py explains every field
  --model       a trained model in place of --config: a folder of --mode=export, the name of one
                that comes with the package, or hf:USER/MODEL
  --mode        {modes}
  --workdir     default: runs/<name of the config or the model>
  --dry_run     print the config, the parameters and the cost, and exit

Several machines run as one if each runs this command, with a --workdir that all see. SLURM and TPU
slices of GKE are recognised, unless --nodistributed keeps them apart; --distributed asks jax for
other TPU slices; elsewhere give --coordinator (an address of process 0), --num_processes and
--process_id.

To resume, run the same command again. Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 save first. The
modes after training take the model as the workdir's config.json describes it, or that of --model.
Exit codes: 0 done, 1 the run failed, 2 bad input, 128 + n stopped by signal n.
"""

import contextlib
import os
import pathlib
import re
import runpy
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from gdm_jax import modes
from gdm_jax.runtime import machine, paths, terminal
from gdm_jax.runtime.errors import GdmError, RunError, UsageError

OUT_OF_MEMORY = 'out of memory; smaller batches help (docs/scale.md has more)'
MAX_CPU_DEVICES = 1024
LINGER_SECONDS = 3.0  # between the end of the other processes and that of process 0


class Command(NamedTuple):
  """A parsed command line; `cluster`: the fields of `distributed.Cluster`."""

  config: ConfigDict
  workdir: pathlib.Path
  mode: str
  dry_run: bool
  cluster: tuple[str, int, int, bool | None]


def main(argv: Sequence[str]) -> int:
  """Runs the command and returns its exit code."""
  if {'--help', '-h', '-help', '--helpfull'} & set(argv[1:]) or len(argv) == 1:
    print(_help())
    return 0
  terminal.never_fail()
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

  from gdm_jax import build
  from gdm_jax.config import get, without_effect
  from gdm_jax.modes import describe
  from gdm_jax.runtime import console, distributed
  from gdm_jax.training.workdir import adopt_config

  config, workdir, mode, dry_run, _ = command
  with one_line(workdir):
    # What is asked, and of which model.
    distributed.require_same('config, mode and --workdir', f'{config}{mode}{workdir}')
    if modes.MODES[mode].trained:
      adopt_config(config, workdir, explicit)
    if useless := without_effect(config, mode, explicit):
      build.system(config)  # what is wrong comes first
      for key, reason in useless.items():
        console.log(f'{key} = {get(config, key)} has no effect: {reason}')

    # Do it; what this machine or its files lack is told in one line.
    if dry_run:
      describe.run(config)
    else:
      modes.load(mode)(config, workdir)
  return 0


@contextlib.contextmanager
def one_line(workdir: pathlib.Path) -> Iterator[None]:
  """Raises RunError in place of errors about what the machine or its files lack."""
  import jax

  from gdm_jax.runtime.files import DISK_FULL

  try:
    yield
  except MemoryError as error:
    raise RunError(f'{OUT_OF_MEMORY}: {error}') from error
  except (jax.errors.JaxRuntimeError, TimeoutError) as error:  # TimeoutError: orbax's, of a barrier
    first = str(error).splitlines()[0]
    if 'RESOURCE_EXHAUSTED' in str(error):
      raise RunError(f'{OUT_OF_MEMORY}: {first}') from error
    if jax.process_count() == 1:
      raise
    raise RunError(f'the processes cannot continue together: {first}') from error
  except OSError as error:
    if error.errno in DISK_FULL:
      raise RunError(
        f'{workdir}: {DISK_FULL[error.errno]}; the checkpoints that were saved before are intact. '
        'Make room, and run the same command again'
      ) from error
    if error.filename is None:
      raise
    # Such as a folder in place of a file.
    raise RunError(f'{error.filename}: {error.strerror}') from error


def parse(argv: Sequence[str]) -> Command:
  """Parses a command line. Raises UsageError."""
  source, others = _source(argv)
  # ml_collections wants the file before the overrides, and would join tuples that are given twice.
  last = {a.split('=')[0] if '=' in a else i: a for i, a in enumerate(others)}
  argv = [argv[0], *source.argument, *last.values()]
  values = flags.FlagValues()
  workdir = flags.DEFINE_string('workdir', None, 'Output folder.', flag_values=values)
  mode = flags.DEFINE_enum('mode', 'train', list(modes.MODES), 'What to do.', flag_values=values)
  dry_run = flags.DEFINE_bool('dry_run', False, 'Only describe.', flag_values=values)
  cluster = (
    flags.DEFINE_string('coordinator', '', 'Address of process 0.', flag_values=values),
    flags.DEFINE_integer('num_processes', 0, 'How many there are.', flag_values=values),
    flags.DEFINE_integer('process_id', -1, 'Which one this is.', flag_values=values),
    flags.DEFINE_bool('distributed', None, 'Ask jax which it is.', flag_values=values),
  )
  try:
    config = source.define(values, argv)
    rest = values(argv)[1:]
  except (SyntaxError, ImportError, NameError, OSError) as error:
    raise UsageError(f'{source} cannot be read: {error}') from None
  except flags.UnrecognizedFlagError as error:
    raise UsageError(str(error)) from None
  except flags.Error as error:
    raise UsageError(' '.join(str(error).split())) from None
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UsageError(_bad_override(source, argv, error)) from None
  if rest:
    raise UsageError(f'{rest[0]!r} is no flag; overrides look like --config.train.batch=64')
  if not 1 <= (devices := config.value.machine.cpu_devices) <= MAX_CPU_DEVICES:
    raise UsageError(f'machine.cpu_devices = {devices} must be 1 to {MAX_CPU_DEVICES}')
  if source.defaults is not None and mode.value == 'train' and not dry_run.value:
    raise UsageError(
      f'{source} is trained; --config.train.start={source.name}, with a --config, begins from it'
    )
  _empty_tuples(config.value)
  folder = paths.expand('--workdir', workdir.value or str(pathlib.Path('runs') / source.stem))
  paths.expand_all(config.value)
  cluster = tuple(flag.value for flag in cluster)
  return Command(config.value, folder, mode.value, dry_run.value, cluster)


class _Source(NamedTuple):
  """Where a config comes from: a file, or the export of a model, whose config `defaults` is."""

  path: pathlib.Path
  stem: str
  defaults: ConfigDict | None = None

  @property
  def name(self) -> str:
    return str(self.path)

  @property
  def argument(self) -> list[str]:
    """What the flag of the config is given."""
    return [f'--config={self.path}'] if self.defaults is None else []

  def define(self, values: flags.FlagValues, argv: list[str]) -> flags.FlagHolder:
    """The flag of the config, whose overrides are in `argv`."""
    if self.defaults is not None:
      return config_flags.DEFINE_config_dict(
        'config', self.defaults, flag_values=values, sys_argv=argv
      )
    if (root := str(self.path.resolve().parent.parent)) not in sys.path:
      sys.path.append(root)  # configs import each other
    return config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=argv)

  def __str__(self):
    return f'--{"config" if self.defaults is None else "model"}={self.path}'


def _source(argv) -> tuple[_Source, list[str]]:
  """What --config or --model names, and the other arguments. Raises UsageError and ConfigError."""
  given = []
  for i, argument in enumerate(argv):
    if match := re.fullmatch(r'--?(config|model)(?:=(.*))?', argument, re.DOTALL):
      following = argv[i + 1 : i + 2] if match[2] is None else []
      given.append((match[1], match[2] or ''.join(following), {i, i + len(following)}))
  if not given:
    raise UsageError(
      '--config is missing, e.g. --config=configs/digits.py, or --model (--help explains)'
    )
  (kind, value, _), *more = given
  if more:
    raise UsageError(f'--{kind}={value} and --{more[0][0]}={more[0][1]}: give one of them')
  others = [a for i, a in enumerate(argv) if i not in given[0][2] and i]
  if kind == 'config':
    file = paths.expand('--config', value)
    if not file.is_file():
      raise UsageError(f'--config={file}: no such file; see configs/')
    return _Source(file, file.stem), others
  return _model(value), others


def _model(name) -> _Source:
  """The config of an export, which says where it lies."""
  from gdm_jax.runtime import exported  # and with it jax

  model = exported.open_model(name)
  return _Source(model.folder, exported.short_name(name), model.config())


def _bad_override(source, argv, error):
  # ml_collections names only the wrong part of a key, as the first word.
  text = ' '.join(map(str, error.args))
  wrong = (re.findall(r'\w+', text) or [''])[0]
  for argument in argv:
    key = argument.split('=')[0].removeprefix('--config.')
    if argument.startswith('--config.') and wrong in key.split('.'):
      elsewhere = [k for k in _keys(source) if k.split('.')[-1] == wrong]
      close = re.search(r'Did you mean "(\w+)"', text)
      hints = elsewhere or ([close[1]] if close else [])
      hint = f'did you mean {" or ".join(hints)}?' if hints else 'configs/default.py lists them'
      return f'{argument}: no such key; {hint}'
  return text


def _keys(source, config=None, prefix=''):
  """The dotted keys of a config."""
  if config is None:
    config = source.defaults or runpy.run_path(source.name)['get_config']()
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      yield from _keys(source, value, f'{prefix}{name}.')
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
  machine.keep_programs(c.compilation_cache)
  import jax

  from gdm_jax.runtime import distributed

  distributed.join(distributed.Cluster(*command.cluster), f'--workdir={command.workdir}')
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
