"""The mesh: rows of a batch are where their process is, on any machines."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest

from gdm_jax.runtime import sharding


@dataclass(frozen=True)
class Device:
  process_index: int
  id: int
  slice_index: int
  platform: str = 'tpu'


@pytest.mark.parametrize('fsdp', [1, 2])
def test_devices_come_process_after_process(fsdp):
  # As jax lists those of a slice, or of machines of GPUs, which it refuses to put into one mesh.
  devices = [Device(p, 10 * p + i, slice_index=p) for i in (1, 0) for p in (1, 0)]
  mesh = sharding.mesh(fsdp, devices)
  assert mesh.devices.shape == (4 // fsdp, fsdp)
  assert [d.id for d in np.ravel(mesh.devices)] == [0, 1, 10, 11]
  assert mesh.axis_names == ('data', 'fsdp')


def test_on_a_cpu_xla_optimises_less_unless_it_is_told_how_much(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_cpu_use_fusion_emitters=false')
  options = sharding.compiler_options(sharding.mesh())
  assert options == {sharding.OPTIMIZATION: '1'}
  assert jax.jit(lambda x: x + 1, compiler_options=options)(1.0) == 2
  assert sharding.compiler_options(sharding.mesh(), 0) == {sharding.OPTIMIZATION: '0'}
  monkeypatch.setenv('XLA_FLAGS', f'--{sharding.OPTIMIZATION}=3')
  assert sharding.compiler_options(sharding.mesh()) == {}


def test_other_devices_are_compiled_for_as_xla_does(monkeypatch):
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  gpu = Device(0, 0, 0, 'gpu')
  assert sharding.compiler_options(sharding.mesh(1, [gpu])) == {}
