"""How fast this machine trains and samples, and how much of that is not the network.

  python -m experiments.benchmarks.throughput --config=configs/cifar10_vanilla.py \\
    --config.train.batch=8 --config.sampling.batch=8 [--random_images=1000] [--repeats=20]

Times, without compilation, the training step on data in the devices' memory, and up to 16 steps of
`sampling.solver` at sampling.batch: medians, with the 10th and 90th percentile. Also times the step
as the loop runs it, fed by the data pipeline and dispatched ahead, and likewise the step without
data and groups (`step_cost.bare_step`): the mean seconds of all repeats. images/s and MFU are the
loop's. MFU is XLA's count of FLOPs, convolutions counted as direct ones, over the best rate of
square matrix products in model.dtype that this machine reached on all devices: a CPU, which needs
fewer for some convolutions (`runtime.winograd`), can exceed 100%. "beside network" is the share of
the loop that the bare step does not take, 0 if the difference drowns in noise. Run it on an idle
machine; on two cores the command above takes about ten minutes.

workdir/throughput.json keeps an entry for each device, number of devices, batch and dtype, and all
of them make the table: run it again with another batch. --random_images=N trains on that many
random images, so that no data set is needed; 0 takes that of the config.

  --peer=SCRIPT --peer_python=PYTHON --peer_flags='--device cuda --compile'

times another program in the same run, before this one takes the accelerator's memory, and prints
both and the ratio. It is given --batch, --dtype and --repeats, then the flags, and has to print
lines 'train: N images/s, ...' (a step on data in memory) and 'sample: N network evaluations'.
"""

import functools
import json
import pathlib
import shlex
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float
from ml_collections import ConfigDict

from experiments.benchmarks import peer as peers
from experiments.benchmarks import step_cost
from experiments.lib import command, report
from gdm_jax import build
from gdm_jax.config import check, is_guided
from gdm_jax.data import pipeline, units
from gdm_jax.data.base import ArraySource, Source
from gdm_jax.generation.generator import Generator, chunks
from gdm_jax.runtime import console, distributed, files, sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training import flops
from gdm_jax.training import step as training_step

KEYS = 'device', 'devices', 'batch', 'dtype'
SIZES = 1024, 2048, 4096, 8192, 16384  # of the square matrices whose products are timed
AHEAD = 16  # batches, as many as the pipeline reads ahead at the most, and more
SLOW = 0.1  # seconds of a product after which larger ones are left out


def run(
  config: ConfigDict,
  workdir: pathlib.Path,
  *,
  repeats: int = 20,
  random_images: int = 0,
  peer: str = '',
  peer_python: str = 'python3',
  peer_flags: str = '',
):
  """Times the peer, if any, then this; replaces an entry of throughput.json and prints all."""
  if repeats < 1:
    raise ConfigError(f'--repeats={repeats} must be at least 1')
  # What is wrong with the config should not cost a minute of the peer. No devices are asked for:
  # jax would take an accelerator's memory from it.
  check(config)
  _require_fixed_steps(config)
  if not random_images:
    build.data_source(config)
  if peer:
    console.log('timing the peer')
    batch = [f'--batch={config.train.batch}', f'--dtype={config.model.dtype}']
    flags = [*batch, f'--repeats={repeats}', *shlex.split(peer_flags)]
    peer_rates = peers.run(peer, peer_python, flags)

  entry = measure(config, repeats, random_images)
  if peer:
    entry['peer'] = peer_rates
  if distributed.is_primary():
    workdir.mkdir(parents=True, exist_ok=True)
    entries = _keep(workdir / 'throughput.json', entry)
    print(report.to_text([_row(entry) for entry in entries]))
    if peer:
      print('\n' + report.to_text(_comparison(entry)))
      if config.sampling.batch != config.train.batch:
        print(
          f'sampling.batch = {config.sampling.batch}, but the peer samples {config.train.batch}: '
          'make them equal to compare'
        )
    print(f'see {workdir}/throughput.json')


def measure(config: ConfigDict, repeats: int, random_images: int = 0) -> dict:
  """Every number of one entry; seconds, bytes, FLOPs and their rates over all devices."""
  build.check_devices(config)
  system, mesh = build.system(config), sharding.mesh(config.machine.fsdp)
  rows = chunks(build.sampling_table(config, system))[0]
  data = random_data(config, random_images) if random_images else build.data_source(config)
  entry = {
    'device': jax.devices()[0].device_kind,
    'devices': mesh.size,
    'batch': config.train.batch,
    'dtype': config.model.dtype,
    'sampling_batch': config.sampling.batch,
    'solver': config.sampling.solver,
    'repeats': repeats,
    'training_flop_per_image': flops.training(config, system),
    'evaluation_flop': flops.network(config, system, 1),
    **training(config, system, data, mesh, repeats),
    **sampling(config, system, rows, mesh, repeats),
  }
  console.log('timing matrix products')
  peak = matrix_rate(config.model.dtype, mesh, repeats)
  train = entry['images_per_second'] * entry['training_flop_per_image']
  walk = entry['evaluations_per_second'] * entry['evaluation_flop']
  return {
    **entry,
    'matrix_flops_per_second': peak,
    'training_mfu': train / peak,
    'sampling_mfu': walk / peak,
  }


def _require_fixed_steps(config):
  if build.solver(config).cost(1) is None:
    raise ConfigError(
      f'sampling.solver = {config.sampling.solver!r} chooses its steps itself; take another'
    )


def training(
  config: ConfigDict, system: build.System, data: Source, mesh: Mesh, repeats: int
) -> dict:
  """The step on data in memory, as the loop runs it, and bare; its cost and memory."""
  optimizer = build.optimizer(config)
  iterator = pipeline.batches(
    data,
    config.train.batch,
    config.seed,
    flip=config.data.flip,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  batch = sharding.shard_batch(next(iterator), mesh)
  create = functools.partial(training_step.init_state, config, system, optimizer)
  layout = sharding.fsdp_sharded(mesh, jax.eval_shape(create))
  state = jax.jit(create, out_shardings=layout)()
  layouts = layout, sharding.replicated(mesh)

  # Compile the step, and the bare network step that it is compared with.
  console.log('compiling the training step')
  start = time.perf_counter()
  advance = training_step.jit_train_step(config, system, optimizer, mesh, state)
  advance = advance.lower(state, batch).compile()
  compilation = time.perf_counter() - start
  bare = jax.jit(
    step_cost.bare_step(config, system, optimizer),
    donate_argnums=0,
    out_shardings=layouts,
    compiler_options=sharding.compiler_options(mesh),
  )
  x = jax.jit(units.from_uint8)(batch['x'])
  k = system.process.grouping.num_groups
  alpha = jax.jit(
    lambda: jnp.full((config.train.batch, k), 0.5), out_shardings=sharding.batch_sharded(mesh)
  )()
  state, _ = jax.block_until_ready(bare(state, x, x, alpha))

  # One step at a time; then many, as the loop dispatches them.
  console.log('timing the training step')
  times = []
  for repeat in range(repeats + 1):
    start = time.perf_counter()
    state, _ = jax.block_until_ready(advance(state, batch))
    if repeat:
      times.append(time.perf_counter() - start)
  for _ in range(AHEAD):
    next(iterator)  # read while others were timed, so the cost of data would not show
  loop, state = _dispatched(
    repeats, state, advance, lambda: sharding.shard_batch(next(iterator), mesh)
  )
  network, state = _dispatched(repeats, state, bare, lambda: x, lambda: x, lambda: alpha)
  seconds = spread('step', times)
  return {
    'compile_seconds': compilation,
    **seconds,
    'loop_seconds': loop,
    'network_seconds': network,
    'images_per_second': config.train.batch / loop,
    'images_per_second_on_device': config.train.batch / seconds['step_seconds'],
    'share_beside_network': max(1 - network / loop, 0.0),
    **_memory(advance),
  }


def _dispatched(repeats, state, program, *arguments):
  """Seconds per step with asynchronous dispatch, and the final state."""
  start = time.perf_counter()
  for _ in range(repeats):
    state, _ = program(state, *(argument() for argument in arguments))
  jax.block_until_ready(state)
  return (time.perf_counter() - start) / repeats, state


def sampling(
  config: ConfigDict,
  system: build.System,
  rows: Float[np.ndarray, 'rows k'],
  mesh: Mesh,
  repeats: int,
) -> dict:
  """The walk along some rows of the table, from latents in memory."""
  c = config.sampling
  generator = Generator.from_config(config, system, mesh)
  params = jax.jit(system.predictor.init, out_shardings=sharding.replicated(mesh))(
    jax.random.key(0)
  )
  seeds = np.arange(c.batch, dtype=np.uint32)
  labels = build.sampling_labels(config, seeds)

  console.log('timing sampling')
  times = []
  for repeat in range(repeats + 1):
    states = generator.iterate(params, rows, seeds, labels)
    jax.block_until_ready(next(states))
    start = time.perf_counter()
    x = jax.block_until_ready(next(states))
    if repeat:  # the first one compiles
      times.append(time.perf_counter() - start)
  evaluations = len(x) * build.solver(config).cost(len(rows) - 1) * (1 + is_guided(config))
  seconds = spread('walk', times)
  return {
    **seconds,
    'evaluations_of_walk': evaluations,
    'evaluations_per_second': evaluations / seconds['walk_seconds'],
  }


def matrix_rate(dtype: str, mesh: Mesh, repeats: int) -> float:
  """FLOP/s of square matrix products, one on every device at a time; the best size counts."""
  layout, best = sharding.batch_sharded(mesh), 0.0
  product = jax.jit(jnp.matmul, out_shardings=layout)
  for size in SIZES:
    shape = (mesh.size, size, size)
    # Not of zeros: accelerators clock higher on those.
    draw = jax.jit(
      lambda shape=shape: jax.random.normal(jax.random.key(0), shape, dtype), out_shardings=layout
    )
    x = draw()
    seconds = median(lambda x=x: product(x, x), repeats)
    best = max(best, 2 * mesh.size * size**3 / seconds)
    if seconds > SLOW:
      break
  return best


def median(call: Callable[[], jax.Array], repeats: int) -> float:
  """The median seconds of a call, after one that is not counted."""
  times = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    jax.block_until_ready(call())
    times.append(time.perf_counter() - start)
  return float(np.median(times[1:]))


def spread(name: str, seconds: list[float]) -> dict[str, float]:
  """The median of times, and the 10th and 90th percentile."""
  low, middle, high = np.percentile(seconds, (10, 50, 90)).tolist()
  return {f'{name}_seconds': middle, f'{name}_seconds_p10': low, f'{name}_seconds_p90': high}


def random_data(config: ConfigDict, count: int) -> Source:
  """That many random images of the config's shape and classes."""
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (count, *config.data.shape), np.uint8)
  classes = config.model.classes
  return ArraySource(x, rng.integers(0, max(classes, 1), count).astype(np.int32), classes)


def _memory(program):
  """The peak memory of a device; if it does not report it, XLA's plan for the step."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'peak_bytes_in_use' in stats:
    return {'peak_bytes': stats['peak_bytes_in_use'], 'peak_bytes_by': 'device'}
  plan = program.memory_analysis()
  planned = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
  return {'peak_bytes': planned - plan.alias_size_in_bytes, 'peak_bytes_by': 'XLA'}


def _keep(file, entry):
  """Replaces the entry with the same key, saves the file, returns all entries."""
  entries = json.loads(file.read_text()) if file.exists() else []
  entries = [old for old in entries if any(old[key] != entry[key] for key in KEYS)]
  entries = sorted([*entries, entry], key=lambda e: [e[key] for key in KEYS])
  with files.atomic_write(file) as f:
    f.write(json.dumps(entries, indent=2).encode())
  return entries


def _row(entry):
  """An entry as a line of the table."""
  e = entry
  low, high = (e['batch'] / e[f'step_seconds_{p}'] for p in ('p90', 'p10'))
  return {
    'device': f'{e["devices"]} x {e["device"]}',
    'dtype': e['dtype'],
    'batch': e['batch'],
    'images/s': f'{e["images_per_second"]:.4g}',
    'on device (10-90%)': f'{e["images_per_second_on_device"]:.4g} ({low:.4g}-{high:.4g})',
    'evaluations/s': f'{e["evaluations_per_second"]:.4g}',
    'TFLOP/s of products': f'{e["matrix_flops_per_second"] / 1e12:.4g}',
    'MFU training': f'{e["training_mfu"]:.1%}',
    'sampling': f'{e["sampling_mfu"]:.1%}',
    'beside network': f'{e["share_beside_network"]:.1%}',
    'GiB': f'{e["peak_bytes"] / 2**30:.2f} ({e["peak_bytes_by"]})',
    'compile s': f'{e["compile_seconds"]:.3g}',
  }


def _comparison(entry):
  """Both programs and their ratio: steps on data in memory, and sampling."""
  names = {
    'images/s on device': 'images_per_second_on_device',
    'evaluations/s': 'evaluations_per_second',
  }
  ours, theirs = ({name: e[key] for name, key in names.items()} for e in (entry, entry['peer']))
  ratio = {name: ours[name] / theirs[name] for name in names}
  rows = {'this': ours, 'peer': theirs, 'ratio': ratio}
  return [
    {'program': program, **{name: f'{value:.3g}' for name, value in row.items()}}
    for program, row in rows.items()
  ]


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
