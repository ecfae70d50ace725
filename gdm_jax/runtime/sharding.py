"""Where arrays live: a mesh of all devices, batches split over it, parameters whole or divided."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

SMALL = 2**14  # elements of an array that is not worth dividing


def mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """All devices of all processes, in rows of `fsdp`; the axes are named 'data' and 'fsdp'.

  In the order of the processes, so that rows of a batch are where their process is. `jax.make_mesh`
  would follow the wires of a TPU slice instead, and refuses several machines of GPUs.
  """
  devices = sorted(devices or jax.devices(), key=lambda d: (d.process_index, d.id))
  grid = np.array(devices).reshape(-1, fsdp)
  return Mesh(grid, ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2)


def split(mesh: Mesh) -> NamedSharding:
  """The leading axis divided over all devices."""
  return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def everywhere(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def divided(mesh: Mesh, tree):
  """The shardings of a training state: of large arrays the longest axis that can, over 'fsdp'.

  What is small, or cannot, is whole on every device, and so is everything where 'fsdp' is 1.
  """
  parts = mesh.shape['fsdp']

  def sharding(x):
    axes = [axis for axis in range(x.ndim) if x.shape[axis] % parts == 0]
    if parts == 1 or x.size < SMALL or not axes:
      return everywhere(mesh)
    longest = max(axes, key=lambda axis: x.shape[axis])
    return NamedSharding(mesh, PartitionSpec(*(None,) * longest, 'fsdp'))

  return jax.tree.map(sharding, tree)


def gathered(mesh: Mesh, tree: dict) -> dict:
  """Arrays that may be divided, whole on every device."""
  if mesh.shape['fsdp'] == 1:
    return tree
  return _gather(mesh)(tree)


@functools.cache
def _gather(mesh):
  """One program for all calls."""
  return jax.jit(lambda x: x, out_shardings=everywhere(mesh))


def to_devices(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """The global batch from this process's share of it."""
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split(mesh), x), batch)
