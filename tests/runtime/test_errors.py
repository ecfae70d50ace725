"""Errors of one line: their exit codes; and a program without what its system lacks."""

import signal

import pytest

from gdm_jax.runtime import errors
from tests.support import runs


@pytest.mark.parametrize(
  ('kind', 'code'),
  [
    *((errors.UsageError, 2), (errors.ConfigError, 2), (errors.DataError, 2)),
    *((errors.TrainingError, 1), (errors.DivergedError, 1)),
  ],
)
def test_exit_codes(kind, code):
  assert kind('words').exit_code == code
  assert issubclass(kind, errors.GdmError)


def test_bad_input_is_a_value_error():
  with pytest.raises(ValueError, match='words'):
    raise errors.ConfigError('words')


def test_a_signal_gives_the_code_of_shells():
  stop = errors.Interrupted(signal.SIGTERM, 1234)
  assert stop.exit_code == 143
  assert str(stop) == 'SIGTERM: saved step 1,234; run the same command again to resume'


def test_the_lock_needs_no_fcntl():
  """As on Windows."""
  code = "import sys; sys.modules['fcntl'] = None; import gdm_jax.runtime.lock"
  runs.python('-c', code)
