"""The errors that end a command with one line, and the exit code of each."""

import signal
from collections.abc import Callable, Sized


class GdmError(Exception):
  """An error whose message is for the user."""

  exit_code = 1


class InputError(GdmError, ValueError):
  """Bad input: the message names the key or the argument, the value, and what would be valid."""

  exit_code = 2


class UsageError(InputError):
  """A command line that cannot be understood."""


class ConfigError(InputError):
  """A config that cannot be run."""


class DataError(InputError):
  """A data set that cannot be used as the config asks."""


class RunError(GdmError, RuntimeError):
  """A run that failed although its input was good."""


class TrainingError(RunError):
  """A training run that cannot continue; the message says what is safe and what to try."""


class DivergedError(RunError):
  """Images or latents that are not finite."""


class Interrupted(GdmError):
  """The run was asked to stop by a signal, and saved."""

  def __init__(self, number: int, step: int):
    name = signal.Signals(number).name
    super().__init__(f'{name}: saved step {step:,}; run the same command again to resume')
    self.signal, self.exit_code = number, 128 + number


def check_finite(finite: Sized, name: Callable[[int], str]):
  """Raises DivergedError if a flag is False; `name(i)` describes the first such entry."""
  if bad := [i for i, ok in enumerate(finite) if not ok]:
    raise DivergedError(
      f'{len(bad)} of {len(finite)} hold NaN or infinity, first {name(bad[0])}: the model or the '
      'solver diverged'
    )
