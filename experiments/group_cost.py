"""Fig. 11 again: what k groups cost, by a network on whole images and by one with cached groups.

  python -m experiments.group_cost --config=configs/digits_causal.py --groups=1,2,4,16

For every number of groups (rectangular blocks), with --steps steps in each: FLOPs an image, as XLA
counts them, and seconds an image at every batch size of --batches, by the config's network with its
cache, without it, and by DDPM++ as the config has it. The networks are not trained, which changes
no cost. Run it on an idle machine. Trained models of the same data add their distances:

  --models=runs/digits_causal,runs/digits

The paper: with k groups sampling costs k times the evaluations of the network (Section 5).
"""

import dataclasses
import math
import pathlib
import statistics
import time

import jax
import numpy as np
import pandas as pd

from experiments.lib import command, report
from experiments.lib.study import Study, identity, workdirs
from gdm_jax import build, caching, figures, schedule
from gdm_jax.config import parse_seeds
from gdm_jax.generation.cached import can_cache
from gdm_jax.generation.generator import Generator
from gdm_jax.runtime import sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training import flops

KEYS = ('model', 'network', 'groups', 'steps', 'cache', 'batch', 'config')
COSTLY = ('data.shape', 'basis', 'path', 'model', 'sampling.solver', 'machine')
"""What costs depend on besides. The column `config` is the `study.identity` of these; of a trained
model it stands for its parameters and its samples."""

VALUES = ('flops', 'seconds', 'deviation', 'distance', 'metric')
REPEATS = 3


def run(
  config,
  workdir: pathlib.Path,
  *,
  groups: str = '1,2,4',
  steps: int = 16,
  batches: str = '1,64',
  models: str = '',
):
  """Measures every cost that results.csv lacks. Raises ConfigError."""
  if not (solver := build.solver(config)).order:
    raise ConfigError(f'sampling.solver = {solver.name!r} chooses its steps itself')
  study = Study('group_cost', workdir, KEYS, VALUES)
  rows = []
  for k in sorted(set(command.numbers('groups', groups))):
    for network, cache in (
      (config.model.name, True),
      (config.model.name, False),
      ('ddpmpp', False),
    ):
      subject = _with_groups(config, network, k)
      system = build.system(subject)
      if cache and not system.predictor.is_groupwise:
        raise ConfigError(
          f'model.name = {network} has no cache; group_causal and context_unet have'
        )
      for batch in sorted(set(command.numbers('batches', batches))):
        values = '', network, k, steps, cache, batch, identity(subject, *COSTLY)
        key = dict(zip(KEYS, values, strict=True))
        row = study.cells.measure(
          {name: str(value) for name, value in key.items()},
          lambda s=subject, y=system, c=cache, b=batch: cost(s, y, steps, c, b),
        )
        rows.append(row)
  for model in study.models(config, workdirs(models, workdir) if models else []):
    rows.append(_distance(study, model, steps))
  rows = pd.DataFrame(rows)
  picture = study.folder / 'figure.png'
  draw(picture, rows)
  study.publish(__doc__, *summarise(rows), [picture], rows, config)


def _with_groups(config, network, k):
  """The config with another network, and one strategy of k blocks, as square as can be."""
  config = config.copy_and_resolve_references()
  config.model.name = network
  rows = max(n for n in range(1, math.isqrt(k) + 1) if k % n == 0)
  name = next(iter(config.strategies))
  for other in list(config.strategies):
    if other != name:
      del config.strategies[other]
  config.strategies[name].update(grouping='blocks', groups=(k // rows, rows), order=(), cuts=())
  config.sampling.update(strategy='', order=(), cuts=())
  return config


def cost(config, system, steps, cache, batch):
  """FLOPs and seconds an image, as strings; k times `steps` steps in all."""
  k, solver = system.process.grouping.num_groups, build.solver(config)
  table = np.asarray(system.process.table(schedule.sequential(range(k)), k * steps))
  cached = cache and can_cache(system, solver)
  params = jax.jit(system.predictor.init)(jax.random.key(0))
  generator = Generator(system, config.data.shape, solver, sharding.mesh(), cache=cached)
  seeds, times = np.arange(batch), []
  for _ in range(REPEATS + 1):  # the first time compiles
    start = time.perf_counter()
    generator.sample(params, table, seeds, chunk_steps=len(table))
    times.append((time.perf_counter() - start) / batch)
  counted = (
    _cached_flops(config, system, table)
    if cached
    else flops.network(config, system, 1) * (solver.cost(len(table) - 1))
  )
  return {
    'flops': f'{counted:.6g}',
    'seconds': f'{statistics.median(times[1:]):.4g}',
    'deviation': f'{statistics.stdev(times[1:]):.2g}',
    'distance': '',
    'metric': '',
  }


def _cached_flops(config, system, table):
  """FLOPs of one image; XLA counts the body of a loop once, hence segment by segment."""
  process, solver = system.process, build.solver(config)
  walk = caching.to_data(process, solver)
  plan = caching.plan(table, system.predictor.network.tokens.groups)
  params = jax.eval_shape(system.predictor.init, jax.random.key(0))
  y = jax.ShapeDtypeStruct((1, *config.data.shape), np.float32)

  def begin(params, y):
    model = system.predictor.bind_cached(params)
    return walk.start(plan.segments[0].rows[0], y), caching.full(model, plan, y)

  def context(params, cache):
    return system.predictor.bind_cached(params).context(cache, plan.ids)

  state, cache = jax.eval_shape(begin, params, y)
  once, total = flops.count(context, params, cache), 0
  for segment in plan.segments:
    counts = []
    for keeps in (False, True):
      part = dataclasses.replace(segment, keeps=keeps)

      def forward(params, state, cache, part=part):
        model = system.predictor.bind_cached(params)
        return caching.forward(model, plan, part, walk, state, cache)

      counts.append(flops.count(forward, params, state, cache))
    intervals, rows, _ = segment.rows.shape
    step, encoding = counts[0] - once, counts[1] - counts[0]
    total += intervals * (once + (rows - 1) * step + segment.keeps * encoding)
  return total


def _distance(study, model, steps):
  """The distance of a trained model's samples, with `steps` steps a group."""
  k = len(build.sampling_order(model.config, model.system.strategies)[1])
  config = model.with_sampling(model.config.evaluation.seeds, steps=(k * steps,))
  name, count = model.config.model.name, len(parse_seeds(model.config, 'evaluation.seeds'))
  cached = model.config.sampling.cache and can_cache(model.system, build.solver(model.config))
  how = f'{model.checkpoint.fingerprint}-{identity(config, "sampling", "evaluation")}'
  key = dict(zip(KEYS, (model.name, name, k, steps, cached, count, how), strict=True))

  def measure():
    row = model.row(config, model.evaluator(config, model.checkpoint))
    return {name: row.get(name, '') for name in VALUES}

  return study.cells.measure({name: str(value) for name, value in key.items()}, measure)


def _costs(rows):
  """The rows that hold costs, with a label for each way to generate."""
  costs = rows[rows['seconds'] != ''].copy()
  cached = costs['cache'] == 'True'
  costs['label'] = costs['network'] + cached.map({True: ', cached', False: ', whole images'})
  for name in ('groups', 'batch', 'flops', 'seconds'):
    costs[name] = costs[name].astype(float)
  return costs


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table, costs relative to one group of the same network, and the findings."""
  lines, findings = [], []
  for (label, batch), part in _costs(rows).groupby(['label', 'batch'], sort=False):
    part = part.set_index('groups').sort_index()
    name = f'{label}, batch {batch:.0f}'
    costs = {
      f'k = {k:.0f}': f'{row.flops / 1e9:.3g} GFLOP, {row.seconds:.3g} s'
      for k, row in part.iterrows()
    }
    lines.append({'an image': name, **costs})
    if part.index[0] == 1:
      last, one = part.iloc[-1], part.iloc[0]
      findings.append(
        f'{name}: k = {part.index[-1]:.0f} costs {last.flops / one.flops:.3g} times the FLOPs of '
        f'k = 1 and {last.seconds / one.seconds:.3g} times the seconds.'
      )
  for row in rows[rows['distance'] != ''].itertuples():
    findings.append(
      f'{row.model}: {row.metric} {float(row.distance):.4g} with k = {row.groups}, {row.steps} '
      f'steps a group, {row.batch} samples.'
    )
  return pd.DataFrame(lines), findings


def draw(file: pathlib.Path, rows: pd.DataFrame):
  """A line for each way to generate: seconds an image over the number of groups."""
  costs = _costs(rows)
  costs['label'] += ', batch ' + costs['batch'].astype(int).astype(str)
  costs['deviation'] = costs['deviation'].astype(float)
  figures.plot_lines(
    file,
    report.points_by(costs, 'label', ['groups', 'seconds', 'deviation']),
    sorted({int(k) for k in costs['groups']}),
    xlabel='groups',
    ylabel='seconds an image',
    xscale='log',
    yscale='log',
  )


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
