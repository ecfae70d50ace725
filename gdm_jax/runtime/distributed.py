"""Several processes that run as one: joining, and agreeing on when to stop."""

import collections
import contextlib
import os
import re
import signal
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from gdm_jax.runtime import rendezvous, sharding
from gdm_jax.runtime.errors import ConfigError

HEARTBEAT_TIMEOUT = 30  # seconds without a heartbeat after which a process counts as lost
STOP_DELAY_STEPS = 8  # from a signal to the common stop; also how far the host may run ahead


STOPPING = tuple(
  getattr(signal, name)
  for name in ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2')
  if hasattr(signal, name)
)
"""What saves and stops a run: Ctrl-C, a scheduler (SLURM, submitit), a closed terminal."""


class Cluster(NamedTuple):
  """The processes of the run, from the command line; the defaults mean a single process."""

  coordinator: str = ''
  num_processes: int = 0
  process_id: int = -1
  detect: bool | None = None  # None: where the environment names several processes


def join(cluster: Cluster, run: str = ''):
  """Joins the other processes of the run; call it before jax touches a device.

  They are those of the command line, or of SLURM or a TPU slice of GKE if the environment names
  several, or, with `detect`, whatever jax finds. Raises ConfigError if only some of the three flags
  are given, and if the others do not come. With detect=False nothing is joined that is not named.
  run: tells this run from others that were given the same coordinator by mistake.
  """
  *explicit, detect = cluster
  given = cluster.coordinator, cluster.num_processes > 0, cluster.process_id >= 0
  if any(given) and not (all(given) and cluster.process_id < cluster.num_processes):
    raise ConfigError(
      f'--coordinator={cluster.coordinator} --num_processes={cluster.num_processes} '
      f'--process_id={cluster.process_id}: give all three, such as host:1234, 4 and 0 to 3'
    )
  if cluster.coordinator and not re.fullmatch(r'.+:\d{1,5}', cluster.coordinator):
    raise ConfigError(f'--coordinator={cluster.coordinator} needs a port, such as host:1234')
  if not any(given) and (detect is False or not (detect or _launched_with_others())):
    return
  if any(given):
    rendezvous.meet(*explicit, run)
  # Otherwise jax takes SIGTERM, to note it and do nothing.
  jax.config.update('jax_enable_preemption_service', False)
  # Explicit flags must not be mixed with what jax detects, such as the GPU of SLURM's task.
  explicit, detection = (explicit, 'deactivate') if any(given) else ((), None)
  try:
    jax.distributed.initialize(
      *explicit, cluster_detection_method=detection, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT
    )
  except (RuntimeError, ValueError) as error:
    raise ConfigError(f'the processes of the run did not meet: {error}') from None


def _launched_with_others() -> bool:
  """Whether the environment says that this is one of several processes."""
  e = os.environ
  # SLURM_NTASKS is set in a batch script too, which runs once: only srun starts several.
  slurm = 'SLURM_PROCID' in e and int(e.get('SLURM_STEP_NUM_TASKS', 1)) > 1
  return slurm or ',' in e.get('TPU_WORKER_HOSTNAMES', '')


def is_primary() -> bool:
  """Whether this is process 0, which writes files and speaks for all."""
  return jax.process_index() == 0


def from_process_0(value: bool | float) -> bool | float:
  """Process 0's value on every process: what is read from files or measured may differ."""
  if jax.process_count() == 1:
    return value
  return type(value)(multihost_utils.broadcast_one_to_all(value))


def require_same(what: str, value: str):
  """Raises ConfigError, on every process, if not all were given the same value."""
  if jax.process_count() == 1:
    return
  digests = multihost_utils.process_allgather(np.uint32(zlib.crc32(value.encode())))
  if different := np.flatnonzero(digests != digests[0]).tolist():
    raise ConfigError(
      f'processes {different} were given another {what} than process 0; if they are runs of their '
      'own, start them with --nodistributed'
    )


@contextlib.contextmanager
def collect_signals() -> Iterator[list[int]]:
  """Records STOPPING instead of exiting; a second signal has its default effect."""
  received: list[int] = []

  def receive(number, _):
    received.append(number)
    signal.signal(number, previous[number])
    with contextlib.suppress(OSError):  # the terminal may be gone
      os.write(2, b'\nstopping after this step; once more to stop at once\n')

  # A closed terminal that `nohup` ignores stays ignored; Ctrl-C is ours also in the background.
  always = signal.SIGINT, signal.SIGTERM
  heard = [n for n in STOPPING if n in always or signal.getsignal(n) != signal.SIG_IGN]
  previous = {n: signal.signal(n, receive) for n in heard}
  try:
    yield received
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


class StopSignal:
  """The signal by which all processes stop at the same step, whichever of them received it.

  jax's own `reached_preemption_sync_point` knows SIGTERM alone.
  """

  def __init__(self, received: Sequence[int], mesh: Mesh):
    """received: where this process's signals arrive."""
    self._received, self._mesh = received, mesh
    self._largest = jax.jit(lambda x: x.max(), out_shardings=sharding.replicated(mesh))
    self._pending: collections.deque[jax.Array] = collections.deque()

  def poll(self) -> int:
    """The signal, or 0; every process must call it once a step.

    With several processes it is STOP_DELAY_STEPS late, so that no step waits for the devices.
    """
    local = self._local()
    if jax.process_count() == 1:
      return local
    flags = np.full(jax.local_device_count(), local, np.int32)
    self._pending.append(self._largest(sharding.shard_batch({'': flags}, self._mesh)['']))
    return int(self._pending.popleft()) if len(self._pending) > STOP_DELAY_STEPS else 0

  def agree(self) -> int:
    """The signal, or 0, without delay; every process waits for all."""
    local = self._local()
    return (
      local if jax.process_count() == 1 else int(multihost_utils.process_allgather(local).max())
    )

  def _local(self):
    return self._received[0] if self._received else 0
