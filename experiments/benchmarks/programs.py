"""What XLA makes of a model's programs: memory, operations, communication, the largest fusions.

  python -m experiments.benchmarks.programs --config=configs/cifar10_vanilla.py \\
    --config.model.dtype=bfloat16 --topology=v5e:2x4 --into=docs/scale.md

Compiles a training step and a step of `sampling.solver`, and reads the result; nothing runs. With
--topology that is for a TPU slice that need not exist (pip install libtpu; the full-size network
takes minutes on two cores), otherwise for the devices of this machine. All figures are of one
device and one step, as the compiled program states them:

  GFLOP, GB         XLA's count of operations, and of the bytes that they read and write
  scratch, peak     memory besides what is kept, and the largest total (GiB)
  collectives       how often devices exchange data, and with how many bytes
  largest fusions   the operations that read and write most, and where in the network they are

--into=FILE writes the table into a page, between the lines `<!-- programs -->` and `<!-- end -->`.
"""

import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.lib import command, report
from gdm_jax import build, sampling
from gdm_jax.runtime import sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training import step as training_step

COLLECTIVES = 'all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute'
FUSIONS = 3
"""How many of the largest are named."""


def run(config, _, *, topology: str = '', into: str = ''):
  """Prints the table. Raises ConfigError for an unknown topology."""
  page = report.Page(into, 'programs') if into else None
  mesh = mesh_of(config, topology)
  rows = []
  for name, lower in PROGRAMS.items():
    lowered = lower(config, mesh)
    began = time.perf_counter()
    compiled = lowered.compile()
    rows.append(
      {'program': name, **describe(compiled), 'compile, s': round(time.perf_counter() - began)}
    )
  print(f'{mesh.size} x {mesh.devices.flat[0].device_kind}', report.to_text(rows), sep='\n')
  if page:
    page.write(rows)


def mesh_of(config: ConfigDict, topology: str) -> Mesh:
  """The devices of this machine, or of a TPU slice such as v5e:2x4. Raises ConfigError."""
  devices = jax.devices()
  if topology:
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # there is no TPU to be asked
    try:
      devices = topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
    except Exception as error:
      raise ConfigError(f'--topology={topology}: {error}; it needs libtpu') from None
  build.check_devices(config, len(devices))
  return sharding.mesh(config.machine.fsdp, devices)


def training(config: ConfigDict, mesh: Mesh) -> jax.stages.Lowered:
  """A training step, as training runs it."""
  system, optimizer = build.system(config), build.optimizer(config)
  state, examples = training_step.abstract_inputs(config, system, optimizer)
  step = training_step.jit_train_step(config, system, optimizer, mesh, state)
  state = jax.tree.map(_placed, state, sharding.fsdp_sharded(mesh, state))
  split = sharding.batch_sharded(mesh)
  return step.lower(state, {name: _placed(x, split) for name, x in examples.items()})


def sampling_step(config: ConfigDict, mesh: Mesh) -> jax.stages.Lowered:
  """One step of the solver, from one row of the table to the next, of `sampling.batch` images."""
  system = build.system(config)
  solver, process = build.solver(config), system.process
  guidance = build.sampling_guidance(config, system)

  def step(params, rows, z, labels):
    predict = system.predictor.bind(params, labels, guidance)
    return sampling.sample(predict, process, rows, z, solver)

  whole, split = sharding.replicated(mesh), sharding.batch_sharded(mesh)
  params = jax.eval_shape(system.predictor.init, jax.random.key(0))
  params = jax.tree.map(lambda x: _placed(x, whole), params)
  rows = _abstract((2, process.grouping.num_groups), jnp.float32, whole)
  batch = config.sampling.batch
  z = _abstract((batch, *config.data.shape), jnp.float32, split)
  labels = _abstract((batch,), jnp.int32, split)
  options = sharding.compiler_options(mesh)
  return jax.jit(step, out_shardings=split, compiler_options=options).lower(params, rows, z, labels)


PROGRAMS = {'training step': training, 'sampling step': sampling_step}


def _placed(x, where):
  return _abstract(x.shape, x.dtype, where)


def _abstract(shape, dtype, where):
  return jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def describe(compiled: jax.stages.Compiled) -> dict[str, object]:
  """The columns of one program."""
  cost, plan = compiled.cost_analysis(), compiled.memory_analysis()
  instructions = list(read(compiled.as_text()))
  count, moved = Counter(), Counter()
  for one in instructions:
    if one.kind in COLLECTIVES:
      count[one.kind] += one.times
      moved[one.kind] += one.times * one.result
  fusions = sorted(
    (i for i in instructions if i.kind == 'fusion'), key=lambda i: -i.times * i.bytes
  )
  return {
    'GFLOP': f'{cost["flops"] / 1e9:.4g}',
    'GB': f'{cost["bytes accessed"] / 1e9:.4g}',
    'kept, GiB': f'{plan.alias_size_in_bytes / 2**30:.2f}',
    'scratch, GiB': f'{plan.temp_size_in_bytes / 2**30:.2f}',
    'peak, GiB': f'{plan.peak_memory_in_bytes / 2**30:.2f}',
    'collectives': ', '.join(f'{count[k]} {k} of {moved[k] / 1e6:.4g} MB' for k in count) or 'none',
    'largest fusions': ', '.join(
      f'{one.source} {one.times * one.bytes / 1e6:.4g} MB' for one in fusions[:FUSIONS]
    ),
  }


class Instruction(NamedTuple):
  """Of a compiled program."""

  kind: str
  result: int  # bytes
  bytes: int  # of the result and the operands
  times: int  # how often a run of the program executes it
  source: str  # where in the model it comes from


LINE = re.compile(
  r'\s+(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<type>.*?) (?P<kind>[a-z][\w-]*)\((?P<rest>.*)'
)
ARRAY = re.compile(r'\b[a-z]+(?P<bits>\d*)\w*\[(?P<shape>[\d,]*)\]')  # bool is pred, a byte
CALLED = re.compile(r'(?:body|to_apply|branch_computations)=(?:%([\w.-]+)|\{([^}]*)\})')
NOISE = re.compile(r'jit\(\w+\)/|while/body/|closed_call/')  # of a source
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


def read(text: str) -> Iterator[Instruction]:
  """What a program executes, from XLA's text of it.

  A fusion is one instruction, and every branch of a conditional counts.
  """
  bodies, name = {}, ''
  for line in text.splitlines():
    if match := LINE.match(line):
      bodies[name][match['name']] = match
    elif line.endswith('{'):
      name = line.removeprefix('ENTRY ').split()[0].lstrip('%')
      bodies[name] = {}
      if line.startswith('ENTRY'):
        entry = name
  yield from _execute(bodies, entry, 1)


def _execute(bodies, name, times):
  for match in bodies[name].values():
    kind, rest = match['kind'].removesuffix('-start'), match['rest']
    # What others start has its operand in its type too; a started all-reduce has results alone.
    started = match['kind'].endswith('-start') and kind != 'all-reduce'
    result = _size(match['type'], max if started else sum)
    names = re.findall(r'%([\w.-]+)', rest.partition('), ')[0])
    operands = sum(_size(bodies[name][n]['type']) for n in names if n in bodies[name])
    source = re.search(r'op_name="([^"]*)"', rest)
    yield Instruction(
      kind, result, result + operands, times, NOISE.sub('', source[1]) if source else name
    )
    if kind in ('while', 'call', 'conditional'):
      trips = TRIPS.search(rest)
      for called in CALLED.findall(rest):
        for inner in re.findall(r'[\w.-]+', ' '.join(called)):
          yield from _execute(bodies, inner, times * int(trips[1] if trips else 1))


def _size(of_type, combine=sum):
  """Bytes of an array, or of the arrays of a tuple: of all, or of the largest."""
  sizes = [
    int(array['bits'] or 8) / 8 * math.prod(int(n) for n in array['shape'].split(',') if n)
    for array in ARRAY.finditer(of_type)
  ]
  return int(combine(sizes)) if sizes else 0


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
