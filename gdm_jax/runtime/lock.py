"""One run at a time in a workdir."""

import contextlib
import errno
import os
import pathlib
import socket
from collections.abc import Iterator

import filelock

from gdm_jax.runtime import distributed
from gdm_jax.runtime.errors import ConfigError

HOLDER = '.lock.holder'  # which process holds the lock, for the message to another run
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # what file systems without locks answer


@contextlib.contextmanager
def exclusive(workdir: pathlib.Path) -> Iterator[None]:
  """Holds workdir/.lock while a run trains in it; process 0 does, for all.

  The lock is released when the process ends, however it ends. Raises ConfigError if another run
  holds it. On a file system without locks nothing is refused.
  """
  lock, holder, free = filelock.FileLock(workdir / '.lock'), workdir / HOLDER, True
  if distributed.is_primary():
    try:
      lock.acquire(blocking=False)
    except filelock.Timeout:
      free = False
    except OSError as error:
      if error.errno not in NO_LOCKS:
        raise
  try:
    if not distributed.from_process_0(free):
      raise ConfigError(
        f'--workdir={workdir}: another run is training there{_describe(holder)}; wait for it, or '
        'take another --workdir'
      )
    if lock.is_locked:
      holder.write_text(f'process {os.getpid()} on {socket.gethostname()}')
    yield
  finally:
    if lock.is_locked:
      holder.unlink(missing_ok=True)
      lock.release()


def _describe(holder):
  try:
    return f' ({holder.read_text()})'
  except (OSError, ValueError):  # gone again, or not text
    return ''
