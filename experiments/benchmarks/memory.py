"""What a training step needs of a device's memory, by XLA's plan of the compiled step.

  python -m experiments.benchmarks.memory --config=configs/celebahq256_frequency.py \\
    --config.machine.microbatches=8 --config.machine.remat=blocks --config.model.dtype=bfloat16 \\
    --topology=v5e:2x4

Nothing runs: with --topology the step is compiled for a TPU slice that need not exist (pip install
libtpu; a network for 256 x 256 takes about ten minutes on two cores), otherwise for the devices of
this machine. `state` is what the step keeps (parameters, moments, averages), `scratch` what it
needs besides, `peak` the largest total if the backend reports it.
"""

import functools
import json
import os

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from experiments.lib import command
from gdm_jax import build
from gdm_jax.runtime import sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training import step as training_step


def run(config, _, *, topology: str = ''):
  """Prints the plan as JSON, GiB a device. Raises ConfigError for an unknown topology."""
  devices = _devices(topology) if topology else jax.devices()
  build.check_devices(config, len(devices))
  mesh = sharding.mesh(config.machine.fsdp, devices)
  system, optimizer = build.system(config), build.optimizer(config)
  batch = config.train.batch
  state = jax.eval_shape(functools.partial(training_step.init_state, config, system, optimizer))
  layout = sharding.fsdp_sharded(mesh, state)
  split = sharding.batch_sharded(mesh)

  def abstract(x, sharding):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  examples = {
    'x': jax.ShapeDtypeStruct((batch, *config.data.shape), jnp.uint8, sharding=split),
    'label': jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=split),
  }
  step = jax.jit(
    training_step.make_train_step(config, system, optimizer),
    donate_argnums=0,
    out_shardings=(layout, sharding.replicated(mesh)),
  )
  plan = step.lower(jax.tree.map(abstract, state, layout), examples).compile().memory_analysis()
  report = {
    'device': f'{mesh.size} x {mesh.devices.flat[0].device_kind}',
    'batch': batch,
    **{key: config.machine[key] for key in ('microbatches', 'remat', 'fsdp')},
    'dtype': config.model.dtype,
    'state_gib': plan.alias_size_in_bytes / 2**30,
    'scratch_gib': plan.temp_size_in_bytes / 2**30,
    'peak_gib': plan.peak_memory_in_bytes / 2**30,
  }
  print(json.dumps(report, indent=2))


def _devices(topology):
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # there is no TPU to be asked
  try:
    return topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
  except Exception as error:
    raise ConfigError(f'--topology={topology}: {error}; it needs libtpu') from None


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
