"""--dry_run: the resolved config, the parameters and the cost; nothing is written."""

import jax
from clu import parameter_overview
from ml_collections import ConfigDict

from gdm_jax import build
from gdm_jax.training import flops, loop


def run(config: ConfigDict):
  """Prints the config, the parameters and the FLOPs. Raises ConfigError."""
  system = build.system(config)
  table = build.sampling_table(config, system)
  build.check_devices(config)
  params = jax.eval_shape(system.predictor.init, jax.random.key(0))
  print(config)
  print(parameter_overview.get_parameter_overview(params, include_stats=False))

  count = sum(x.size for x in jax.tree.leaves(params))
  batch, steps = config.train.batch, len(table) - 1
  train, forward = flops.training(config, system), flops.network(config, system, 1)
  network = flops.network(config, system, batch, gradient=True) / batch
  print(f'parameters          {count:,}')
  print(f'groups              {system.process.grouping.num_groups} (all strategies refined)')
  print(f'network, forward    {forward / 1e9:.3f} GFLOP an image')
  print(
    f'training step       {train / 1e9:.3f} GFLOP an image, {1 - network / train:.2%} of it '
    'for groups, loss, Adam and EMA'
  )
  print(
    f'whole run           {loop.num_steps(config):,} steps of {batch}, '
    f'{train * config.train.duration / 1e18:.3g} EFLOP'
  )
  print(f'one sample          {steps} steps, {steps * forward / 1e9:.3f} GFLOP with Euler')
