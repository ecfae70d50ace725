"""Several processes that run as one: joining, and agreeing on when to stop."""

import collections
import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from gdm_jax.runtime import sharding
from gdm_jax.runtime.errors import ConfigError

HEARTBEAT_TIMEOUT = 30  # seconds without a sign of life after which a process counts as lost
LAG = 8  # steps from a signal until all processes stop, and that the host may run ahead


class Cluster(NamedTuple):
  """Which of how many processes this is, as the command line has it; nothing is one alone."""

  coordinator: str = ''
  num_processes: int = 0
  process_id: int = -1
  detect: bool = False


def join(cluster: Cluster):
  """Joins the other processes of the run; call it before jax touches a device.

  They are those of the command line, or of SLURM or a TPU slice of GKE where the environment names
  several, or, with `detect`, whatever jax finds. Raises ConfigError for a part of the three flags,
  and where the others do not come.
  """
  *explicit, detect = cluster
  given = cluster.coordinator, cluster.num_processes > 0, cluster.process_id >= 0
  if any(given) and not (all(given) and cluster.process_id < cluster.num_processes):
    raise ConfigError(
      f'--coordinator={cluster.coordinator} --num_processes={cluster.num_processes} '
      f'--process_id={cluster.process_id}: give all three, such as host:1234, 4 and 0 to 3'
    )
  if not any(given) and not (detect or _several()):
    return
  # Else jax takes SIGTERM, to note it and do nothing.
  jax.config.update('jax_enable_preemption_service', False)
  # What is said is not to be mixed with what jax finds, such as the GPU of SLURM's task.
  explicit, how = (explicit, 'deactivate') if any(given) else ((), None)
  try:
    jax.distributed.initialize(
      *explicit, cluster_detection_method=how, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT
    )
  except (RuntimeError, ValueError) as error:
    raise ConfigError(f'the processes of the run did not meet: {error}') from None


def _several():
  """Whether the environment says that this is one of several processes."""
  e = os.environ
  # SLURM_NTASKS is set in a batch script too, which runs once: only srun starts several.
  slurm = 'SLURM_PROCID' in e and int(e.get('SLURM_STEP_NUM_TASKS', 1)) > 1
  return slurm or ',' in e.get('TPU_WORKER_HOSTNAMES', '')


def decide(answer: bool | float) -> bool | float:
  """Process 0's answer on every process: what is found in files or measured may differ."""
  if jax.process_count() == 1:
    return answer
  return type(answer)(multihost_utils.broadcast_one_to_all(answer))


class StopSignal:
  """The signal by which all processes stop at the same step, whichever of them received it."""

  def __init__(self, received: Sequence[int], mesh: Mesh):
    """received: where this process's signals arrive."""
    self._received, self._mesh = received, mesh
    self._largest = jax.jit(lambda x: x.max(), out_shardings=sharding.replicated(mesh))
    self._asked: collections.deque[jax.Array] = collections.deque()

  def poll(self) -> int:
    """The signal, or 0; to be called by every process once a step.

    Several processes hear of it LAG steps late, so that none waits for the devices.
    """
    own = self._own()
    if jax.process_count() == 1:
      return own
    mine = np.full(jax.local_device_count(), own, np.int32)
    self._asked.append(self._largest(sharding.shard_batch({'': mine}, self._mesh)['']))
    return int(self._asked.popleft()) if len(self._asked) > LAG else 0

  def now(self) -> int:
    """The same at once; every process waits for all."""
    own = self._own()
    return own if jax.process_count() == 1 else int(multihost_utils.process_allgather(own).max())

  def _own(self):
    return self._received[0] if self._received else 0
