"""Where arrays live: a mesh of all devices, batches sharded over it, parameters too if asked."""

import functools
import os
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

SMALL = 2**14  # elements below which an array is not worth sharding
OPTIMIZATION = 'xla_backend_optimization_level'  # of XLA's flags; 3 by itself


def mesh(fsdp: int = 1, devices: Sequence | None = None) -> Mesh:
  """All devices of all processes, in rows of `fsdp`; the axes are named 'data' and 'fsdp'.

  In the order of the processes, so that the rows of a batch are on their own process's devices.
  `jax.make_mesh` would order devices by TPU topology, and fails on multi-node GPU clusters.
  """
  devices = sorted(devices or jax.devices(), key=lambda d: (d.process_index, d.id))
  grid = np.array(devices).reshape(-1, fsdp)
  return Mesh(grid, ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2)


def batch_sharded(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """The leading axis divided over all devices."""
  return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def fsdp_sharded(mesh: Mesh | AbstractMesh, tree):
  """The shardings of a training state: the longest axis that divides, over 'fsdp'.

  Arrays that are small, or have no such axis, are replicated, and so is all where 'fsdp' is 1.
  """
  parts = mesh.shape['fsdp']

  def sharding(x):
    axes = [axis for axis in range(x.ndim) if x.shape[axis] % parts == 0]
    if parts == 1 or x.size < SMALL or not axes:
      return replicated(mesh)
    longest = max(axes, key=lambda axis: x.shape[axis])
    return NamedSharding(mesh, PartitionSpec(*(None,) * longest, 'fsdp'))

  return jax.tree.map(sharding, tree)


def replicate(mesh: Mesh, tree: dict) -> dict:
  """Arrays that may be sharded over 'fsdp', whole on every device."""
  if mesh.shape['fsdp'] == 1:
    return tree
  return _gather(mesh)(tree)


@functools.cache
def _gather(mesh):
  """One program for all calls."""
  return jax.jit(lambda x: x, out_shardings=replicated(mesh))


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """The global batch from this process's share of it."""
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(batch_sharded(mesh), x), batch
  )


def averaged(gradient: Callable, mesh: Mesh, dtype: str) -> Callable:
  """`gradient(params, key, examples)`: the means of losses and gradients over all devices.

  params: whole on every device. examples: arrays [batch, ...]; each device takes its share of the
  rows, and folds its index into the key. The gradients cross between devices in one array of
  `dtype`, however many they are. Losses and gradients are whole on every device.
  """
  axes, everywhere = mesh.axis_names, PartitionSpec()

  def mean(params, key, examples):
    loss, gradients = gradient(params, jax.random.fold_in(key, jax.lax.axis_index(axes)), examples)
    flat, restored = ravel_pytree(gradients)
    flat = jax.lax.pmean(flat.astype(dtype), axes).astype(flat.dtype)
    return jax.lax.pmean(loss, axes), restored(flat)

  specs = everywhere, everywhere, PartitionSpec(axes)
  return jax.shard_map(mean, mesh=mesh, in_specs=specs, out_specs=everywhere, check_vma=False)


def compiler_options(mesh: Mesh, optimization: int = 1) -> dict[str, str]:
  """How XLA compiles large programs for these devices: on a CPU with fewer optimisations.

  That takes two thirds of the time, and what it makes runs as fast (docs/performance.md).
  XLA_FLAGS take precedence. optimization: 0 for what runs once.
  """
  chosen = OPTIMIZATION in os.environ.get('XLA_FLAGS', '')
  return (
    {} if chosen or mesh.devices.flat[0].platform != 'cpu' else {OPTIMIZATION: str(optimization)}
  )
