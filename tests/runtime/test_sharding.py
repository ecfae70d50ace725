"""The mesh: rows of a batch are where their process is, on any machines."""

from dataclasses import dataclass

import numpy as np
import pytest

from gdm_jax.runtime import sharding


@dataclass(frozen=True)
class Device:
  process_index: int
  id: int
  slice_index: int


@pytest.mark.parametrize('fsdp', [1, 2])
def test_devices_come_process_after_process(fsdp):
  # As jax lists those of a slice, or of machines of GPUs, which it refuses to put into one mesh.
  devices = [Device(p, 10 * p + i, slice_index=p) for i in (1, 0) for p in (1, 0)]
  mesh = sharding.mesh(fsdp, devices)
  assert mesh.devices.shape == (4 // fsdp, fsdp)
  assert [d.id for d in np.ravel(mesh.devices)] == [0, 1, 10, 11]
  assert mesh.axis_names == ('data', 'fsdp')
