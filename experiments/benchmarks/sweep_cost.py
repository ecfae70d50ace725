"""What a sweep over 100 orders costs beside 100 times one order (Fig. 5): times both.

  python -m experiments.benchmarks.sweep_cost --config=configs/cifar10_blockwise.py \\
    --config.model.ddpmpp.channels=16 --config.sampling.seeds=0-3 --config.sampling.steps=9

One program serves all orders, since an order is a table; as many orders as fit `sampling.batch`
images are walked side by side. The network is not trained: its numbers cost the same. Medians of
the repeats are printed, and the number of compilations. Run it on an idle machine.
"""

import json
import statistics
import time

import jax
import numpy as np

from experiments.lib import command
from gdm_jax import build, sampling, schedule
from gdm_jax.config import parse_seeds

ORDERS = 100
REPEATS = 3


def run(config):
  """Prints the seconds of one order and of all, and their ratio, as JSON."""
  system = build.system(config)
  strategy = next(iter(system.strategies.values()))
  seeds = parse_seeds(config)
  at_once = max(config.sampling.batch // len(seeds), 1)
  params = jax.jit(system.predictor.init)(jax.random.key(0))
  z = jax.jit(sampling.latents, static_argnums=1)(seeds, config.data.shape)
  rng = np.random.default_rng(0)
  orders = np.stack([rng.permutation(strategy.num_groups) for _ in range(ORDERS)])
  schedules = [schedule.sequential(order, strategy.cuts).over(strategy.indices) for order in orders]
  tables = np.stack([system.process.table(s, config.sampling.steps[0]) for s in schedules])

  def sample(params, table, z):
    predict = system.predictor.bind(params)
    return sampling.sample(predict, system.process, table, z, config.sampling.solver)

  def sweep(params, tables, z):
    predict, c = system.predictor.bind(params), config.sampling
    return sampling.sweep(predict, system.process, tables, z, c.solver, at_once)

  one, every = jax.jit(sample), jax.jit(sweep)
  times = {'one': [], 'every': []}
  for repeat in range(REPEATS + 1):
    # Other orders each time, and ten of them one by one.
    tables = np.roll(tables, 7, axis=0)
    for name, calls in (
      ('one', [lambda t=t: one(params, t, z) for t in tables[:10]]),
      ('every', [lambda t=tables: every(params, t, z)]),
    ):
      start = time.perf_counter()
      for call in calls:
        jax.block_until_ready(call())
      if repeat:  # the first time compiles
        times[name].append((time.perf_counter() - start) / len(calls))
  median = {name: statistics.median(t) for name, t in times.items()}
  report = {
    'device': jax.devices()[0].device_kind,
    'orders': ORDERS,
    'samples_each': len(seeds),
    'steps': len(tables[0]) - 1,
    'orders_at_once': at_once,
    'seconds_one_order': median['one'],
    'seconds_all_orders': median['every'],
    'seconds_all_orders_each_time': times['every'],
    'all_over_orders_times_one': median['every'] / (ORDERS * median['one']),
    'compilations': {'one': one._cache_size(), 'all': every._cache_size()},
  }
  print(json.dumps(report, indent=2))


if __name__ == '__main__':
  command.start(lambda config, _: run(config), __doc__, trained=False)
