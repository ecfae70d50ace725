"""--mode=likelihood: log p(x) of data under a trained model, in all and group by group."""

import csv
import functools
import json
import math
import pathlib

import jax
import numpy as np
import tqdm
from jax.sharding import Mesh
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from gdm_jax import build, figures, likelihood, sampling
from gdm_jax.data import base
from gdm_jax.data.units import from_uint8
from gdm_jax.generation.generator import chunks
from gdm_jax.modes import common
from gdm_jax.runtime import console, distributed, sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training.checkpoint import trained


def run(config: ConfigDict, workdir: pathlib.Path):
  """Writes likelihood.csv, summary.json and likelihood.png to workdir/likelihood; prints a table.

  Groups are those of `sampling.strategy`, in its order of generation. Data of discrete values are
  dequantised: their log-likelihood is a lower bound on log P of the values; of continuous data it
  is that of the density. Too few steps overrate the model: double `sampling.steps` to see. Raises
  ConfigError, and DataError for a split that is not there.
  """
  c = config.likelihood
  system = build.system(config)
  table = build.sampling_table(config, system.strategies)
  try:
    likelihood.get_solver(c.solver)
  except ValueError as error:
    raise ConfigError(f'likelihood.solver = {c.solver!r}: {error}') from None
  source = build.data_source(config, 'likelihood.split', memory_gib=0)
  common.check_classes(config, source)
  mesh = sharding.mesh()
  params, step = trained(config, workdir, system, mesh)
  folder = workdir / 'likelihood'
  common.make_workdir(folder)

  indices = np.arange(min(c.num, len(source)))
  strategy, order = build.sampling_order(config, system.strategies)
  dims, parts = _groups(config, system, strategy, order)
  nats, label = evaluate(config, system, params, table, source, indices, mesh)
  nats = nats @ parts + dims * math.log(source.bin_width or 1)
  summary = {
    'what': ('lower bound on log P of the values' if source.bin_width else 'log p, a density')
    + ', given the label' * bool(config.model.classes),
    'data': config.data.name,
    'split': c.split or config.data.split,
    'examples': len(indices),
    'dequantised': bool(source.bin_width),
    'bin_width': source.bin_width,
    'checkpoint': step,
    'strategy': strategy,
    'order': order,
    'solver': c.solver,
    'steps': len(table) - 1,
    'probes': c.probes,
    'seed': c.seed,
    'total': _statistics(nats.sum(1), int(dims.sum())),
    'groups': [
      {'group': group, **_statistics(nats[:, i], int(dims[i]))} for i, group in enumerate(order)
    ],
  }
  if distributed.is_primary():
    _write(folder, summary, indices, label, nats)
    print(_readable(summary))
  console.log(f'see {folder}')


def evaluate(
  config: ConfigDict,
  system: build.System,
  params: dict,
  table: Float[np.ndarray, 'rows k'],
  source: base.Source,
  indices: Int[np.ndarray, ' n'],
  mesh: Mesh,
) -> tuple[Float[np.ndarray, 'n k'], Int[np.ndarray, ' n']]:
  """log p of each (dequantised) example, nats per refined group, and its label, -1 for none.

  `sampling.batch` at once over all devices; whatever that is, example i has its noise and its
  probes from `likelihood.seed` + i.
  """
  c, process = config.likelihood, system.process
  split = sharding.batch_sharded(mesh)
  batch = -(-min(config.sampling.batch, len(indices)) // mesh.size) * mesh.size
  pieces = chunks(table)[::-1]

  @functools.partial(jax.jit, out_shardings=split)
  def start(x, label, seeds):
    x = from_uint8(x)
    if source.bin_width:
      x = likelihood.dequantise(x, source.bin_width, seeds)
    return likelihood.start(process, table, x, c.solver), label, seeds

  @functools.partial(jax.jit, out_shardings=split)
  def walk(params, rows, state, label, seeds):
    predict = sampling.guided(functools.partial(system.predict, params), label)
    probes = likelihood.rademacher(seeds, c.probes, config.data.shape) if c.probes else None
    return likelihood.walk(predict, process, rows, state, probes, c.solver)

  finish = functools.partial(likelihood.finish, process)
  finish = jax.jit(finish, out_shardings=sharding.replicated(mesh))

  found, labels = [], []
  with tqdm.tqdm(total=len(indices), unit=' examples', unit_scale=True, disable=None) as bar:
    for some in np.split(indices, range(batch, len(indices), batch)):
      full = np.resize(some, batch)  # the last batch too, so that one program serves all
      examples = source[full]
      label = examples['label'] if source.num_classes else np.full(batch, -1, np.int32)
      given = label if config.model.classes else np.full_like(label, -1)
      state, given, seeds = start(examples['x'], given, (c.seed + full).astype(np.uint32))
      for rows in pieces:
        state = walk(params, rows, state, given, seeds)
        jax.block_until_ready(state)
        bar.update(len(some) / len(pieces))
      found.append(np.asarray(finish(state), np.float64)[: len(some)])
      labels.append(label[: len(some)])
  return np.concatenate(found), np.concatenate(labels)


def _groups(config, system, strategy, order):
  """The elements of each group, in the order of generation, and [refined k, k]: what is in it."""
  parts = (np.asarray(system.strategies[strategy].indices)[:, None] == order).astype(float)
  sizes = np.bincount(np.ravel(system.process.grouping.labels)) * config.data.shape[-1]
  return sizes @ parts, parts


def _statistics(nats, dims):
  """Mean over the examples and its standard error, which a single one has not."""

  def mean(values):
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
    return {'mean': float(values.mean()), 'standard_error': error and float(error)}

  bits = likelihood.bits_per_dim(nats, dims)
  return {'dims': dims, 'nats_per_dim': mean(nats / dims), 'bits_per_dim': mean(bits)}


def _write(folder, summary, indices, label, nats):
  order = summary['order']
  with (folder / 'likelihood.csv').open('w', newline='') as file:
    rows = csv.writer(file)
    rows.writerow(['index', 'label', 'nats', *(f'group_{group}' for group in order)])
    for i, own, values in zip(indices, label, nats, strict=True):
      rows.writerow([i, own, values.sum(), *values])
  (folder / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
  bits = [group['bits_per_dim'] for group in summary['groups']]
  figures.plot_bars(
    folder / 'likelihood.png',
    [str(group) for group in order],
    [b['mean'] for b in bits],
    [b['standard_error'] or 0 for b in bits],
    xlabel='group, in the order of generation',
    ylabel='bits/dim given the groups before',
  )


def _readable(summary):
  def line(name, of):
    values = [
      f'{v["mean"]:.4f}' + (f' ± {v["standard_error"]:.4f}' if v['standard_error'] else '')
      for v in (of['nats_per_dim'], of['bits_per_dim'])
    ]
    return f'{name:>8} {of["dims"]:>8,}  {values[0]:>20}  {values[1]:>20}'

  s = summary
  probes = f'{s["probes"]} probe' + 's' * (s['probes'] > 1)
  lines = (
    f'{s["examples"]:,} examples of {s["data"]}, {s["split"]}; checkpoint {s["checkpoint"]:,}, '
    f'{s["solver"]}, {s["steps"]} steps, {probes if s["probes"] else "the exact trace"}',
    f'{s["what"]}; each group given those before it, in the order of generation',
    f'{"group":>8} {"dims":>8}  {"nats/dim":>20}  {"bits/dim":>20}',
    *(line(group['group'], group) for group in s['groups']),
    line('all', s['total']),
  )
  return '\n'.join(lines)
