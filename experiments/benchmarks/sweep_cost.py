"""What a sweep over 100 orders costs compared with 100 single orders (Fig. 5): times both.

  python -m experiments.benchmarks.sweep_cost --config=configs/cifar10_blockwise.py \\
    --config.model.ddpmpp.channels=16 --config.sampling.seeds=0-3 --config.sampling.steps=9

One program serves all orders, since an order is a table; as many orders as fit `sampling.batch`
images are walked side by side. The network is not trained, which does not change its cost. Prints
medians of the repeats and the number of compilations. Run it on an idle machine.
"""

import json
import statistics
import time

import jax
import numpy as np

from experiments.lib import command
from gdm_jax import build, sampling
from gdm_jax.config import blaming, parse_seeds

ORDERS = 100
REPEATS = 3


def run(config):
  """Prints `measure` as JSON."""
  print(json.dumps(measure(config), indent=2))


def measure(config) -> dict:
  """The seconds of one order and of all, and their ratio."""
  # The tables of random orders.
  system = build.system(config)
  strategy = next(iter(system.strategies.values()))
  seeds = parse_seeds(config)
  rng = np.random.default_rng(0)
  orders = np.stack([rng.permutation(strategy.num_groups) for _ in range(ORDERS)])
  schedules = [strategy.schedule(order) for order in orders]
  steps = config.sampling.steps
  with blaming('sampling.steps', steps):
    tables = np.stack([system.process.table(s, steps[0]) for s in schedules])

  # Both programs, and an untrained network.
  solver, at_once = build.solver(config), max(config.sampling.batch // len(seeds), 1)
  params = jax.jit(system.predictor.init)(jax.random.key(0))
  z = jax.jit(sampling.latents, static_argnums=1)(seeds, config.data.shape)

  def sample(params, table, z):
    predict = system.predictor.bind(params)
    return sampling.sample(predict, system.process, table, z, solver)

  def sweep(params, tables, z):
    predict = system.predictor.bind(params)
    return sampling.sweep(predict, system.process, tables, z, solver, at_once)

  one_order, all_orders = jax.jit(sample), jax.jit(sweep)

  # Time them in turn.
  times = {'one': [], 'all': []}
  for repeat in range(REPEATS + 1):  # other orders each time, ten of them one by one
    tables = np.roll(tables, 7, axis=0)
    for name, calls in (
      ('one', [lambda t=t: one_order(params, t, z) for t in tables[:10]]),
      ('all', [lambda t=tables: all_orders(params, t, z)]),
    ):
      start = time.perf_counter()
      for call in calls:
        jax.block_until_ready(call())
      if repeat:  # the first time compiles
        times[name].append((time.perf_counter() - start) / len(calls))

  # Compare.
  median = {name: statistics.median(t) for name, t in times.items()}
  return {
    'device': jax.devices()[0].device_kind,
    'orders': ORDERS,
    'samples_each': len(seeds),
    'steps': len(tables[0]) - 1,
    'orders_at_once': at_once,
    'seconds_one_order': median['one'],
    'seconds_all_orders': median['all'],
    'seconds_all_orders_each_time': times['all'],
    'all_over_orders_times_one': median['all'] / (ORDERS * median['one']),
    'compilations': {'one': one_order._cache_size(), 'all': all_orders._cache_size()},
  }


if __name__ == '__main__':
  command.start(lambda config, _: run(config), __doc__, trained=False)
