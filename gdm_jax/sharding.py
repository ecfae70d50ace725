"""Where arrays live: one mesh of all devices, batches split over it, everything else everywhere."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def mesh() -> Mesh:
  """All devices of all processes in a row, the axis named 'data'."""
  return jax.make_mesh((jax.device_count(),), ('data',), axis_types=(AxisType.Auto,))


def split(mesh: Mesh) -> NamedSharding:
  """The leading axis divided over the devices."""
  return NamedSharding(mesh, PartitionSpec('data'))


def everywhere(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def to_devices(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """The global batch from this process's share of it."""
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split(mesh), x), batch)
