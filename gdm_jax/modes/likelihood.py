"""--mode=likelihood: log p(x) of data under a trained model, in all and group by group."""

import csv
import functools
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import tqdm
from jax.sharding import Mesh
from jaxtyping import Float, Integer
from ml_collections import ConfigDict

from gdm_jax import autoregression, build, caching, figures, likelihood, sampling, schedule
from gdm_jax.build import System
from gdm_jax.config import blaming
from gdm_jax.data.base import Source
from gdm_jax.data.units import from_uint8
from gdm_jax.generation.cached import can_cache
from gdm_jax.generation.generator import CHUNK_STEPS, chunks
from gdm_jax.process import Process
from gdm_jax.runtime import console, distributed, sharding
from gdm_jax.runtime.batching import padded_batches
from gdm_jax.runtime.files import make_folder
from gdm_jax.solvers import Solver
from gdm_jax.training.workdir import load_ema
from gdm_jax.typing import AnyArray


def run(config: ConfigDict, workdir: pathlib.Path):
  """Writes likelihood.csv, summary.json and likelihood.png to workdir/likelihood; prints a table.

  Groups are those of `sampling.strategy`, in its order of generation. A model of discrete times is
  autoregressive: its likelihood is that of Gaussians about its predictions (`autoregression`), with
  deviations fitted to as many training examples. Others have that of their ODE. Data of discrete
  values are dequantised: their log-likelihood is a lower bound on log P of the values; of
  continuous data it is that of the density. Too few steps overestimate the likelihood of an ODE:
  double `sampling.steps` to see.
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
  autoregressive = config.train.times == 'discrete'
  if autoregressive:
    nats, label = evaluate_autoregression(config, system, params, table, source, indices, mesh)
  else:
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
    'solver': None if autoregressive else solver.name,
    'steps': len(table) - 1,
    'probes': None if autoregressive else c.probes,
    'seed': c.seed,
    'total': _statistics(nats.sum(1), int(dims.sum())),
    'groups': [
      {'group': group, **_statistics(nats[:, i], int(dims[i]))} for i, group in enumerate(order)
    ],
  }
  if system.strategies[strategy].overlaps:
    console.log(f'groups of strategies.{strategy} move together: only the total is a likelihood')
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
  c, batch_sharded = config.likelihood, sharding.batch_sharded(mesh)
  cached = config.sampling.cache and can_cache(system, solver) and caching.follows(table)
  walks = (_cached_walk if cached else _plain_walk)(system, table, solver)

  @functools.partial(jax.jit, out_shardings=batch_sharded)
  def start(params, x, label, seeds):
    x = from_uint8(x)
    if source.bin_width:
      x = likelihood.dequantise(x, source.bin_width, seeds)
    return *walks.begin(params, x, label), label, seeds

  @functools.partial(jax.jit, out_shardings=batch_sharded)
  def walk(params, part, state, cache, label, seeds):
    probes = likelihood.rademacher(seeds, c.probes, config.data.shape) if c.probes else None
    return walks.along(params, part, state, cache, label, probes)

  finish = functools.partial(likelihood.finish, walks.process)
  finish = jax.jit(finish, out_shardings=sharding.replicated(mesh))

  nats, labels = [], []
  with tqdm.tqdm(total=len(indices), unit=' examples', unit_scale=True, disable=None) as bar:
    for x, label, given, seeds, valid in _batches(config, source, indices, mesh):
      state, cache, given, seeds = start(params, x, given, seeds)
      for part in walks.parts:
        state = walk(params, part, state, cache, given, seeds)
        jax.block_until_ready(state)
        bar.update(valid / len(walks.parts))
      nats.append(np.asarray(finish(state), np.float64)[:valid])
      labels.append(label[:valid])
  return np.concatenate(nats), np.concatenate(labels)


class _Walk(NamedTuple):
  """From data to noise, part by part of a table.

  begin(params, x, label) -> state, cache.
  along(params, part, state, cache, label, probes) -> state.
  process: of the state's data.
  """

  begin: Callable
  along: Callable
  parts: Sequence
  process: Process


def _plain_walk(system, table, solver):
  process = system.process

  def begin(params, x, label):
    return likelihood.start(process, table, x, solver), ()

  def along(params, rows, state, cache, label, probes):
    predict = system.predictor.bind(params, label)
    return likelihood.walk(predict, process, rows, state, probes, solver)

  return _Walk(begin, along, chunks(table)[::-1], process)


def _cached_walk(system, table, solver):
  bind, process = system.predictor.bind_cached, system.process.of_coefficients
  plan = caching.plan(table, system.predictor.network.tokens.groups, CHUNK_STEPS)

  def begin(params, x, label):
    y = system.process.basis.analyze(x)
    return likelihood.start(process, table, y, solver), caching.full(bind(params, label), plan, y)

  def along(params, segment, state, cache, label, probes):
    walk = caching.to_noise_with_density(process, probes, solver)
    return caching.backward(bind(params, label), plan, segment, walk, state, cache)

  return _Walk(begin, along, plan.segments[::-1], process)


def evaluate_autoregression(
  config: ConfigDict,
  system: System,
  params: dict,
  table: Float[AnyArray, 'rows k'],
  source: Source,
  indices: Integer[np.ndarray, ' n'],
  mesh: Mesh,
) -> tuple[Float[np.ndarray, 'n k'], Integer[np.ndarray, ' n']]:
  """As `evaluate`, of the autoregressive model (`autoregression.log_likelihood`).

  Its deviations are fitted to the first examples of the training split, as many as there are
  indices.
  """
  process, shape = system.process, config.data.shape

  @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
  def squares_of(params, x, label, seeds):
    x = from_uint8(x)
    if source.bin_width:
      x = likelihood.dequantise(x, source.bin_width, seeds)
    z = sampling.latents(seeds, shape)
    if system.predictor.has_conditionals:
      diffusion = jax.tree.map(lambda ends: np.tile(ends, (len(x), 1)), schedule.of_table(table))

      def conditionals(x, x_t, alpha):
        return system.predictor.conditionals(params, x, x_t, alpha, diffusion, label)

      return autoregression.squared_errors_at_once(conditionals, process, x, z)
    predict = system.predictor.bind(params, label)
    return autoregression.squared_errors(predict, process, table, x, z)

  def squares(source, indices, description):
    parts, labels = [], []
    with tqdm.tqdm(total=len(indices), desc=description, unit=' examples', disable=None) as bar:
      for x, label, given, seeds, valid in _batches(config, source, indices, mesh):
        parts.append(np.asarray(squares_of(params, x, given, seeds), np.float64)[:valid])
        labels.append(label[:valid])
        bar.update(valid)
    return np.concatenate(parts), np.concatenate(labels)

  training = build.data_source(config, memory_gib=0)
  fitted, _ = squares(training, np.arange(min(len(indices), len(training))), 'deviations')
  errors, label = squares(source, indices, 'likelihood')
  sizes = _sizes(config, system)
  sigma = autoregression.deviations(fitted, sizes)
  return np.asarray(autoregression.log_likelihood(errors, sizes, sigma)), label


def _batches(config, source, indices, mesh):
  """Batch by batch x, the label, the label that the network is given, seeds, and how many count."""
  for batch, valid in padded_batches(len(indices), config.sampling.batch, mesh.size):
    numbers = indices[batch]
    examples = source[numbers]
    label = examples['label'] if source.num_classes else np.full(len(batch), -1, np.int32)
    given = label if config.model.classes else np.full_like(label, -1)
    seeds = (config.likelihood.seed + numbers).astype(np.uint32)
    yield examples['x'], label, given, seeds, valid


def _groups(config, system, strategy, order):
  """The elements of each group in the order of generation, and its refined groups, [refined, k]."""
  membership = (np.asarray(system.strategies[strategy].indices)[:, None] == order).astype(float)
  return _sizes(config, system) @ membership, membership


def _sizes(config, system):
  """The elements of each refined group."""
  labels = np.broadcast_to(system.process.grouping.of_elements, config.data.shape)
  return np.bincount(labels.ravel())


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
  if s['solver'] is None:
    how = 'Gaussians about the predictions'
  else:
    probes = f'{s["probes"]} probe{"s" * (s["probes"] > 1)}' if s['probes'] else 'the exact trace'
    how = f'{s["solver"]}, {s["steps"]} steps, {probes}'
  lines = (
    f'{s["examples"]:,} examples of {s["data"]}, {s["split"]}; checkpoint {s["checkpoint"]:,}, '
    + how,
    f'{s["what"]}; each group given those before it, in the order of generation',
    f'{"group":>8} {"dims":>8}  {"nats/dim":>20}  {"bits/dim":>20}',
    *(line(group['group'], group) for group in s['groups']),
    line('all', s['total']),
  )
  return '\n'.join(lines)
