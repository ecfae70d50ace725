"""The command line of experiments: that of gdm_jax, and the experiment's own flags."""

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Sequence

from gdm_jax import main
from gdm_jax.runtime import machine, terminal
from gdm_jax.runtime.errors import ConfigError, GdmError
from gdm_jax.training.workdir import adopt_config


def start(run: Callable[..., None], doc: str, trained: bool = True):
  """Calls run(config, workdir, **flags); if `trained`, the model is as the workdir's config says.

  The flags are the keyword arguments of `run`, each with a default of its type; a parameter
  `arguments` gets all other arguments, for `main.main`. --help prints `doc` and the flags. A whole
  number is at least 1, or its default if that is less; `Annotated[int, least]` says otherwise.
  Errors end in one line with the exit codes of gdm_jax.main.
  """
  terminal.never_fail()
  parser = argparse.ArgumentParser(
    description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
  )
  parameters = inspect.signature(run).parameters
  for name, p in parameters.items():
    if p.kind is p.KEYWORD_ONLY:
      parser.add_argument(f'--{name}', type=type(p.default), default=p.default, help='%(default)r')
  flags, rest = parser.parse_known_args(sys.argv[1:] or ['--help'])
  argv = [sys.argv[0], *['--mode=evaluate'] * trained, *rest]  # a --model is trained
  if run.__module__ == '__main__':  # otherwise it is part of another program
    machine.use_huge_pages()
  try:
    for name, value in vars(flags).items():
      if isinstance(value, int) and value < (smallest := least(parameters[name])):
        raise ConfigError(f'--{name}={value} must be at least {smallest}')
    command = main.parse(argv)
    main.prepare(command)
    arguments = (rest,) if 'arguments' in parameters else ()
    with main.one_line(command.workdir):
      if trained:
        adopt_config(command.config, command.workdir, main.overridden(argv))
      run(command.config, command.workdir, *arguments, **vars(flags))
  except GdmError as error:
    main.leave(main.fail(error, error.exit_code))
  except KeyboardInterrupt:
    main.leave(main.fail('interrupted; run the same command again to resume', 130))


def least(parameter: inspect.Parameter) -> int:
  """The smallest value of a flag."""
  return getattr(parameter.annotation, '__metadata__', [min(1, parameter.default)])[0]


def refuse(arguments: Sequence[str], *keys: str):
  """Raises ConfigError if the arguments set keys that an experiment sets itself."""
  for key in keys:
    for argument in arguments:
      if re.match(rf'--?config\.{re.escape(key)}[.=]', argument):
        raise ConfigError(f'{argument}: the experiment sets {key} itself')


def numbers(flag: str, text: str) -> list[int]:
  """The numbers of a flag such as --batches=64,256, each once. Raises ConfigError."""
  found = [int(part) for part in text.split(',') if part.strip().isdecimal()]
  if len(found) != len(text.split(',')) or min(found) < 1:
    raise ConfigError(f'--{flag}={text}: must be numbers such as 64,256')
  return list(dict.fromkeys(found))


def overridden() -> set[str]:
  """The config's keys that the command line names, except strategies."""
  return {key for key in main.overridden(sys.argv) if not key.startswith('strategies.')}
