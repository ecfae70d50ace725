"""What a training step needs of a device's memory, by XLA's plan of the compiled step.

  python -m experiments.benchmarks.memory --config=configs/celebahq256_frequency.py \\
    --config.machine.microbatches=8 --config.machine.remat=blocks --config.model.dtype=bfloat16 \\
    --topology=v5e:2x4

Nothing runs: with --topology the step is compiled for a TPU slice that need not exist (pip install
libtpu; a network for 256 x 256 takes about ten minutes on two cores), otherwise for the devices of
this machine. `state` is what the step keeps (parameters, moments, averages), `scratch` what it
needs besides, `peak` the largest total if the backend reports it.
"""

import json

from experiments.benchmarks import programs
from experiments.lib import command


def run(config, _, *, topology: str = ''):
  """Prints the plan as JSON, GiB a device. Raises ConfigError for an unknown topology."""
  mesh = programs.mesh_of(config, topology)
  plan = programs.training(config, mesh).compile().memory_analysis()
  report = {
    'device': f'{mesh.size} x {mesh.devices.flat[0].device_kind}',
    'batch': config.train.batch,
    **{key: config.machine[key] for key in ('microbatches', 'remat', 'fsdp')},
    'dtype': config.model.dtype,
    'state_gib': plan.alias_size_in_bytes / 2**30,
    'scratch_gib': plan.temp_size_in_bytes / 2**30,
    'peak_gib': plan.peak_memory_in_bytes / 2**30,
  }
  print(json.dumps(report, indent=2))


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
