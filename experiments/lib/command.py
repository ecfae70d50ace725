"""The command line of experiments: that of gdm_jax, and the experiment's own flags."""

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Sequence

from gdm_jax import main
from gdm_jax.runtime import machine
from gdm_jax.runtime.errors import ConfigError, DataError, DivergedError
from gdm_jax.training.checkpoint import adopt_model


def start(run: Callable[..., None], doc: str, trained: bool = True):
  """Calls run(config, workdir, **flags); if `trained`, the model is as the workdir's config says.

  Its flags are the keyword arguments of `run`, each with a default of its type; a parameter
  `arguments` gets those that are not its own, for `main.main`. --help prints
  `doc` and the flags; bad input ends in one line and exit code 2, as in gdm_jax.main.
  """
  parser = argparse.ArgumentParser(
    description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
  )
  parameters = inspect.signature(run).parameters
  for name, p in parameters.items():
    if p.kind is p.KEYWORD_ONLY:
      parser.add_argument(f'--{name}', type=type(p.default), default=p.default, help='%(default)r')
  own, rest = parser.parse_known_args(sys.argv[1:] or ['--help'])
  argv = [sys.argv[0], *rest]
  if run.__module__ == '__main__':  # and not a part of another program
    machine.use_huge_pages()
  try:
    config, workdir, *_ = asked = main.parse(argv)
    main.prepare(asked)
    if trained:
      adopt_model(config, workdir, main.overridden(argv))
    more = (rest,) if 'arguments' in parameters else ()
    run(config, workdir, *more, **vars(own))
  except (main.UsageError, ConfigError, DataError) as error:
    _fail(error, 2)
  except DivergedError as error:
    _fail(error, 1)
  except KeyboardInterrupt:
    _fail('interrupted; run the same command again to go on', 130)


def refuse(arguments: Sequence[str], *keys: str):
  """Raises ConfigError where the arguments set keys that an experiment sets itself."""
  for key in keys:
    for argument in arguments:
      if re.match(rf'--?config\.{re.escape(key)}[.=]', argument):
        raise ConfigError(f'{argument}: the experiment sets {key} itself')


def overridden() -> set[str]:
  """The config's keys that the command line names, but for what a model was trained on."""
  return {key for key in main.overridden(sys.argv) if not key.startswith('strategies.')}


def _fail(error, code):
  print(f'error: {error}', file=sys.stderr)
  main.leave(code)
