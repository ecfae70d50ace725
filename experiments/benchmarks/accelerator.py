"""The first hour on an accelerator: how fast it trains, samples, sweeps orders and caches groups.

  python -m experiments.benchmarks.accelerator --config=configs/cifar10_strategies.py --minutes=20

Measures one thing after another, the most valuable first: matrix products and copies; training and
sampling in bfloat16 and float32 at every batch of --batches, without and with recomputed
activations; 100 orders in one program against 100 single ones; generation with cached groups
(--cached names the config of its network); and a training of --training_minutes, with its sample
grid. --peer=SCRIPT, --peer_python and --peer_flags are those of
`throughput`: the peer is timed right after the same training step.

Each row is written to workdir/accelerator.json at once. What does not fit into the memory says so.
After --minutes nothing new begins; the same command again measures what is missing. --into=FILE
writes the table into a page, between the lines `<!-- accelerator -->` and `<!-- end -->`. On a CPU,
to see what it does:

  python -m experiments.benchmarks.accelerator --config=configs/digits.py --batches=32 \\
    --cached=configs/digits_causal.py --minutes=10 --repeats=3
"""

import itertools
import json
import pathlib
import shlex
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from experiments.benchmarks import peer as peers
from experiments.benchmarks import sweep_cost, throughput
from experiments.group_cost import cost
from experiments.lib import command, report
from gdm_jax import build, main
from gdm_jax.generation.generator import chunks
from gdm_jax.modes import train
from gdm_jax.runtime import console, files, sharding
from gdm_jax.runtime.errors import ConfigError, DataError
from gdm_jax.training import flops
from gdm_jax.training.workdir import read_config, versions

DTYPES = 'bfloat16', 'float32'
COPIED = 2**28  # bytes, far more than any cache
KEYS = ('device', 'devices', 'what', 'dtype', 'batch', 'remat')

Measurement = Callable[[], dict]


def run(
  config,
  workdir: pathlib.Path,
  *,
  minutes: float = 20.0,
  training_minutes: float = 5.0,
  batches: str = '512,256,1024,128',
  cached: str = 'configs/digits_causal.py',
  repeats: int = 20,
  peer: str = '',
  peer_python: str = 'python3',
  peer_flags: str = '',
  into: str = '',
):
  """Measures what accelerator.json lacks until the time is over. Raises ConfigError."""
  sizes = command.numbers('batches', batches)
  if peer and not pathlib.Path(peer).is_file():
    raise ConfigError(f'--peer={peer}: no such file')
  page = report.Page(into, 'accelerator') if into else None
  # What is wrong should not cost a minute of the machine.
  flops.network(config, build.system(config), 1)
  cached_config = main.parse(['', f'--config={cached}']).config
  workdir.mkdir(parents=True, exist_ok=True)
  file, end = workdir / 'accelerator.json', time.monotonic() + 60 * minutes
  entries = json.loads(file.read_text()) if file.exists() else []
  peer_command = (peer, peer_python, shlex.split(peer_flags)) if peer else None
  plan = measurements(
    config, workdir, sizes, cached_config, repeats, peer_command, training_minutes
  )
  done = {tuple(entry[name] for name in KEYS) for entry in entries}
  missing = [(key, measure) for key, measure in plan if key not in done]
  for number, (key, measure) in enumerate(missing):
    if time.monotonic() > end:
      console.log(f'the time is over; the same command measures the other {len(missing) - number}')
      break
    entry = dict(zip(KEYS, key, strict=True))
    console.log(f'{number + 1} of {len(missing)}: {_name(entry)}')
    entries.append({**entry, **_tried(measure), 'versions': versions()})
    with files.atomic_write(file) as f:
      f.write(json.dumps(entries, indent=2).encode())
  rows = [row(entry) for entry in entries]
  print(report.to_text(rows))
  if page:
    page.write(rows)
  print(f'see {file}')


def measurements(
  config, workdir, batches, cached, repeats, peer, training_minutes
) -> Iterator[tuple[tuple, Measurement]]:
  """What is measured, by its values of KEYS, the most valuable first."""
  device, mesh = jax.devices()[0].device_kind, sharding.mesh(config.machine.fsdp)

  def key(what, dtype='', batch=0, remat=''):
    return device, mesh.size, what, dtype, batch, remat

  def with_options(dtype, batch, remat='none'):
    changed = config.copy_and_resolve_references()
    changed.model.dtype, changed.machine.remat = dtype, remat
    changed.train.batch = changed.sampling.batch = batch
    return changed

  for dtype in DTYPES:
    yield (
      key('products', dtype),
      lambda d=dtype: {'flops_per_second': throughput.matrix_rate(d, mesh, repeats)},
    )
  yield key('copy'), lambda: {'bytes_per_second': copy_rate(mesh, repeats)}
  for batch, dtype in itertools.product(batches, DTYPES):
    wanted = with_options(dtype, batch)
    yield key('training', dtype, batch, 'none'), lambda w=wanted: training(w, repeats)
    if peer:
      yield key('peer', dtype, batch), lambda w=wanted: _peer(peer, w, repeats)
    yield key('sampling', dtype, batch), lambda w=wanted: sampling(w, repeats)
  for remat in ('cheap', 'blocks'):
    wanted = with_options('bfloat16', batches[0], remat)
    yield key('training', 'bfloat16', batches[0], remat), lambda w=wanted: training(w, repeats)
  orders = with_options('bfloat16', batches[0])
  yield key('100 orders', 'bfloat16', batches[0]), lambda: _orders(orders)
  yield key('cached groups', 'float32', batches[-1]), lambda: _cached(cached, batches[-1])
  short = with_options('bfloat16', batches[0])
  yield (
    key('short training', 'bfloat16', batches[0]),
    lambda: short_training(short, workdir / 'training', 60 * training_minutes),
  )


def copy_rate(mesh, repeats: int) -> float:
  """Bytes/s of a large copy, read and written, on every device at a time."""
  layout = sharding.batch_sharded(mesh)
  x = jax.jit(lambda: jnp.zeros((mesh.size, COPIED // 4)), out_shardings=layout)()
  copy = jax.jit(lambda x: x + 1, out_shardings=layout)
  return 2 * x.nbytes / throughput.median(lambda: copy(x), repeats)


def training(config, repeats: int) -> dict:
  """The training step on random images: its rate, spread, memory and compilation."""
  build.check_devices(config)
  system, mesh = build.system(config), sharding.mesh(config.machine.fsdp)
  data = throughput.random_data(config, 4 * config.train.batch)
  measured = throughput.training(config, system, data, mesh, repeats)
  return {**measured, 'flop_per_image': flops.training(config, system)}


def sampling(config, repeats: int) -> dict:
  """Up to 16 steps of the config's solver: evaluations/s."""
  system, mesh = build.system(config), sharding.mesh(config.machine.fsdp)
  rows = chunks(build.sampling_table(config, system))[0]
  measured = throughput.sampling(config, system, rows, mesh, repeats)
  return {**measured, 'flop_per_evaluation': flops.network(config, system, 1)}


def _peer(peer, config, repeats):
  script, python, flags = peer
  options = [f'--batch={config.train.batch}', f'--dtype={config.model.dtype}']
  return peers.run(script, python, [*options, f'--repeats={repeats}', *flags])


def _orders(config):
  config.sampling.seeds = '0-7'
  groups = next(iter(build.system(config).strategies.values())).num_groups
  config.sampling.steps = (groups,)
  return sweep_cost.measure(config)


def _cached(config, batch):
  """Seconds an image with and without the cache, of the config's own groups."""
  system, steps = build.system(config), 16
  rows = {cache: cost(config, system, steps, cache, batch) for cache in (True, False)}
  return {
    'groups': system.process.grouping.num_groups,
    'cached_seconds': float(rows[True]['seconds']),
    'uncached_seconds': float(rows[False]['seconds']),
  }


def short_training(config, workdir: pathlib.Path, seconds: float) -> dict:
  """Trains for about that long, and keeps the sample grid."""
  if before := read_config(workdir):  # it was interrupted
    steps = before['train.duration'] // config.train.batch
  else:
    steps = max(int(seconds / training(config, 3)['step_seconds']), 1)
  config.train.duration = steps * config.train.batch
  config.checkpoint.every = config.log.samples_every = config.train.duration
  config.log.every = max(steps // 20, 1) * config.train.batch
  start = time.perf_counter()
  train.run(config, workdir)
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  losses = [row['loss'] for row in map(json.loads, lines) if 'loss' in row]
  return {
    'images': config.train.duration,
    'seconds': time.perf_counter() - start,
    'loss': losses[-1],
  }


def _tried(measure) -> dict:
  """The measurement, or in one line why there is none."""
  try:
    return measure()
  except (ConfigError, DataError) as error:
    return {'failed': str(error)}
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return {'failed': 'out of memory'}


def row(entry: dict) -> dict[str, str]:
  """A measurement as a line of the table."""
  e = entry
  line = {
    'what': _name(e),
    'device': f'{e["devices"]} x {e["device"]}',
    'result': e.get('failed', ''),
    'spread': '',
    'memory, GiB': '',
    'compile, s': '',
  }
  if 'failed' in e:
    return line
  line['result'] = RESULTS[e['what']](e)
  if e['what'] == 'training':
    low, high = (e['batch'] / e[f'step_seconds_{p}'] for p in ('p90', 'p10'))
    line['spread'] = f'{low:.4g} to {high:.4g}'
    line['memory, GiB'] = f'{e["peak_bytes"] / 2**30:.2f} ({e["peak_bytes_by"]})'
    line['compile, s'] = f'{e["compile_seconds"]:.3g}'
  return line


RESULTS: dict[str, Callable[[dict], str]] = {
  'products': lambda e: f'{e["flops_per_second"] / 1e12:.4g} TFLOP/s',
  'copy': lambda e: f'{e["bytes_per_second"] / 1e9:.4g} GB/s',
  'training': lambda e: (
    f'{e["images_per_second_on_device"]:.4g} images/s, '
    f'{e["images_per_second_on_device"] * e["flop_per_image"] / 1e12:.4g} TFLOP/s'
  ),
  'peer': lambda e: (
    f'{e["images_per_second_on_device"]:.4g} images/s, '
    f'{e["evaluations_per_second"]:.4g} evaluations/s'
  ),
  'sampling': lambda e: (
    f'{e["evaluations_per_second"]:.4g} evaluations/s, '
    f'{e["evaluations_per_second"] * e["flop_per_evaluation"] / 1e12:.4g} TFLOP/s'
  ),
  '100 orders': lambda e: (
    f'{e["seconds_all_orders"]:.4g} s, {e["all_over_orders_times_one"]:.3g} times 100 single orders'
  ),
  'cached groups': lambda e: (
    f'{e["cached_seconds"]:.4g} s an image with k = {e["groups"]}, without cache '
    f'{e["uncached_seconds"]:.4g}'
  ),
  'short training': lambda e: (
    f'{e["images"]:,} images in {e["seconds"]:.0f} s, loss {e["loss"]:.4g}'
  ),
}
"""How a measurement reads."""


def _name(entry):
  parts = [entry['what'], entry['dtype'], f'batch {entry["batch"]}' if entry['batch'] else '']
  if entry['remat'] not in ('', 'none'):
    parts.append(f'remat {entry["remat"]}')
  return ', '.join(part for part in parts if part)


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
