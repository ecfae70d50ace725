"""Who is computed for: one at a time, and of every tab only the newest request."""

import collections
import contextlib
import threading
from collections.abc import Callable, Iterator

MAX_TABS = 1000  # that are remembered


class Turns:
  """A lock for which the older requests of a tab give up."""

  def __init__(self):
    self._lock, self._guard = threading.Lock(), threading.Lock()
    self._newest: collections.OrderedDict[str, object] = collections.OrderedDict()
    self._stopped = False

  @contextlib.contextmanager
  def take(self, tab: str) -> Iterator[Callable[[], bool]]:
    """Waits for the turn of a tab's request; yields whether it is still the newest.

    A request that is not must end soon, before it began or between two steps.
    """
    me = object()
    with self._guard:
      self._newest[tab] = me
      self._newest.move_to_end(tab)
      if len(self._newest) > MAX_TABS:
        self._newest.popitem(last=False)

    def still() -> bool:
      return not self._stopped and self._newest.get(tab) is me

    with self._lock:
      yield still

  def stop(self, seconds: float):
    """Tells all requests to end, and waits for the one that is computed."""
    self._stopped = True
    if self._lock.acquire(timeout=seconds):
      self._lock.release()
