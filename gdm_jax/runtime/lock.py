"""One run at a time in a workdir."""

import contextlib
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator

from gdm_jax.runtime import distributed
from gdm_jax.runtime.errors import ConfigError


@contextlib.contextmanager
def alone(workdir: pathlib.Path) -> Iterator[None]:
  """Holds workdir/.lock while a run trains there; process 0 does, for all.

  The lock goes with the process, however it ends. Raises ConfigError where another run has it.
  Where the file system knows no locks, nothing is refused.
  """
  file, held, free = workdir / '.lock', None, True
  if distributed.is_primary():
    held = file.open('a+')
    try:
      fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      free = False
    except OSError:
      pass
  try:
    if not distributed.from_process_0(free):
      raise ConfigError(
        f'--workdir={workdir}: another run is training there{_who(file)}; wait for it, or take '
        'another --workdir'
      )
    if held:
      held.truncate(0)
      held.write(f'process {os.getpid()} on {socket.gethostname()}')
      held.flush()
    yield
    if held:
      held.truncate(0)  # the file stays: one that another run has just opened must not go
  finally:
    if held:
      held.close()


def _who(file):
  text = file.read_text()
  return f' ({text})' if text else ''
