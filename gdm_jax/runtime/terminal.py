"""The terminal, which may be gone: what cannot be written there must not end a run."""

import contextlib
import io
import sys


class _Unfailing:
  """A text stream that cannot fail: what a closed terminal or pipe does not take is lost."""

  def __init__(self, stream: io.TextIOBase):
    self._stream = stream

  def __getattr__(self, name):
    return getattr(self._stream, name)

  def write(self, text):
    with contextlib.suppress(OSError, ValueError):
      return self._stream.write(text)
    return len(text)

  def flush(self):
    with contextlib.suppress(OSError, ValueError):
      self._stream.flush()


def never_fail():
  """Lets no line that cannot be written end the program: a progress bar is not worth a run."""
  if not isinstance(sys.stderr, _Unfailing):
    sys.stderr = _Unfailing(sys.stderr)
