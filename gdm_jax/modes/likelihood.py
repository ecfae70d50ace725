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
from jaxtyping import Float, Integer
from ml_collections import ConfigDict

from gdm_jax import build, figures, likelihood
from gdm_jax.build import System
from gdm_jax.config import blaming
from gdm_jax.data.base import Source
from gdm_jax.data.units import from_uint8
from gdm_jax.generation.generator import chunks
from gdm_jax.runtime import console, distributed, sharding
from gdm_jax.runtime.batching import padded_batches
from gdm_jax.runtime.files import make_folder
from gdm_jax.solvers import Solver
from gdm_jax.training.workdir import load_ema
from gdm_jax.typing import AnyArray


def run(config: ConfigDict, workdir: pathlib.Path):
  """Writes likelihood.csv, summary.json and likelihood.png to workdir/likelihood; prints a table.

  Groups are those of `sampling.strategy`, in its order of generation. Data of discrete values are
  dequantised: their log-likelihood is a lower bound on log P of the values; of continuous data it
  is that of the density. Too few steps overestimate the likelihood: double `sampling.steps` to see.
  Raises ConfigError, and DataError for a split that does not exist.
  """
  # Check everything that can be wrong before any work.
  c = config.likelihood
  system = build.system(config)
  table = build.sampling_table(config, system)
  with blaming('likelihood.solver', repr(c.solver)):
    solver = likelihood.get_solver(build.solver(config, 'likelihood.solver'))
  source = build.data_source(config, 'likelihood.split', memory_gib=0)
  build.check_classes(config, source)
  mesh = sharding.mesh()
  params, step = load_ema(config, workdir, system, mesh)
  folder = workdir / 'likelihood'
  make_folder(folder)

  # Evaluate, and sum the refined groups to the strategy's own.
  indices = np.arange(min(c.num, len(source)))
  strategy, order = build.sampling_order(config, system.strategies)
  dims, membership = _groups(config, system, strategy, order)
  nats, label = evaluate(config, system, params, table, solver, source, indices, mesh)
  nats = nats @ membership + dims * math.log(source.bin_width or 1)

  # Summarise and write.
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
    'solver': solver.name,
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
    print(_to_text(summary))
  console.log(f'see {folder}')


def evaluate(
  config: ConfigDict,
  system: System,
  params: dict,
  table: Float[AnyArray, 'rows k'],
  solver: Solver,
  source: Source,
  indices: Integer[np.ndarray, ' n'],
  mesh: Mesh,
) -> tuple[Float[np.ndarray, 'n k'], Integer[np.ndarray, ' n']]:
  """log p of each (dequantised) example, nats per refined group, and its label, -1 for none.

  `sampling.batch` at once over all devices; whatever that is, example i has its noise and its
  probes from `likelihood.seed` + i.
  """
  c, process = config.likelihood, system.process
  batch_sharded = sharding.batch_sharded(mesh)
  parts = chunks(table)[::-1]

  @functools.partial(jax.jit, out_shardings=batch_sharded)
  def start(x, label, seeds):
    x = from_uint8(x)
    if source.bin_width:
      x = likelihood.dequantise(x, source.bin_width, seeds)
    return likelihood.start(process, table, x, solver), label, seeds

  @functools.partial(jax.jit, out_shardings=batch_sharded)
  def walk(params, rows, state, label, seeds):
    predict = system.predictor.bind(params, label)
    probes = likelihood.rademacher(seeds, c.probes, config.data.shape) if c.probes else None
    return likelihood.walk(predict, process, rows, state, probes, solver)

  finish = functools.partial(likelihood.finish, process)
  finish = jax.jit(finish, out_shardings=sharding.replicated(mesh))

  nats, labels = [], []
  with tqdm.tqdm(total=len(indices), unit=' examples', unit_scale=True, disable=None) as bar:
    for batch, valid in padded_batches(len(indices), config.sampling.batch, mesh.size):
      numbers = indices[batch]
      examples = source[numbers]
      label = examples['label'] if source.num_classes else np.full(len(batch), -1, np.int32)
      given = label if config.model.classes else np.full_like(label, -1)
      state, given, seeds = start(examples['x'], given, (c.seed + numbers).astype(np.uint32))
      for rows in parts:
        state = walk(params, rows, state, given, seeds)
        jax.block_until_ready(state)
        bar.update(valid / len(parts))
      nats.append(np.asarray(finish(state), np.float64)[:valid])
      labels.append(label[:valid])
  return np.concatenate(nats), np.concatenate(labels)


def _groups(config, system, strategy, order):
  """The elements of each group in the order of generation, and its refined groups, [refined, k]."""
  membership = (np.asarray(system.strategies[strategy].indices)[:, None] == order).astype(float)
  sizes = np.bincount(np.ravel(system.process.grouping.labels)) * config.data.shape[-1]
  return sizes @ membership, membership


def _statistics(nats, dims):
  """Mean over the examples and its standard error (None for a single example)."""

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
    for i, class_number, values in zip(indices, label, nats, strict=True):
      rows.writerow([i, class_number, values.sum(), *values])
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


def _to_text(summary):
  def line(name, group):
    values = [
      f'{v["mean"]:.4f}' + (f' ± {v["standard_error"]:.4f}' if v['standard_error'] else '')
      for v in (group['nats_per_dim'], group['bits_per_dim'])
    ]
    return f'{name:>8} {group["dims"]:>8,}  {values[0]:>20}  {values[1]:>20}'

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
