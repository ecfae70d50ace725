"""The least time of a training step on machines that need not be here, from counts and data sheets.

  python -m experiments.benchmarks.roofline --config=configs/cifar10_vanilla.py \\
    --config.model.dtype=bfloat16

Three floors of a step at `train.batch`, split over all devices:

  arithmetic = FLOPs / rate        FLOPs of the convolutions and matrix products of the step
  memory     = bytes / bandwidth   what these read and write, each operand and result once, and the
                                   optimizer's pass over parameters, moments and averages
  network    = 2 (n - 1) / n * gradient / bandwidth, of an all-reduce over n devices in a ring

All else (norms, activations, dropout) is taken to be fused into a product, and the network to hide
behind the arithmetic, so a step takes at least the largest of the three; no machine reaches it.
The counts are of the step's program before any compiler sees it. --into=FILE writes the table into
a page, between the lines `<!-- roofline -->` and `<!-- end -->`.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import numpy as np
from jax.extend.core import Jaxpr, jaxprs_in_params

from experiments.lib import command, report
from gdm_jax import build
from gdm_jax.training import step as training_step

PRODUCTS = 'dot_general', 'conv_general_dilated'


class Device(NamedTuple):
  """What a data sheet says, per device: bfloat16 FLOP/s, bytes/s of memory, bytes/s sent."""

  flops: float
  memory: float
  network: float


H100 = Device(989e12, 3.35e12, 450e9)
H200 = Device(989e12, 4.8e12, 450e9)
V5E = Device(197e12, 819e9, 100e9)
V5P = Device(459e12, 2765e9, 300e9)

MACHINES = {
  '1 H100': (H100, 1),
  '1 H200': (H200, 1),
  '8 H100': (H100, 8),
  'v5e-8': (V5E, 8),
  'v5e-64': (V5E, 64),
  'v5p-64': (V5P, 64),
}
"""Published peaks; the network in one direction: NVLink, or half of a TPU's interconnect."""


@dataclasses.dataclass(frozen=True)
class Counts:
  """Of one training step, over all devices."""

  flops: float
  bytes: float  # read and written by the products
  parameters: int

  @property
  def optimizer_bytes(self) -> float:
    """float32: parameters, two moments and the average read and written, the gradient read."""
    return 4 * self.parameters * (4 * 2 + 1)

  @property
  def gradient_bytes(self) -> float:
    return 4 * self.parameters


def run(config, _, *, into: str = ''):
  """Prints the counts and the floors of every machine. Raises ConfigError."""
  page = report.Page(into, 'roofline') if into else None
  counts = count(config)
  batch = config.train.batch
  print(
    f'a step at batch {batch}: {counts.flops / batch / 1e9:.4g} GFLOP and '
    f'{counts.bytes / batch / 1e6:.4g} MB of products an image, '
    f'{counts.parameters / 1e6:.4g} M parameters'
  )
  rows = [floors(counts, batch, config.train.duration, name) for name in MACHINES]
  print(report.to_text(rows))
  if page:
    page.write(rows)


def count(config) -> Counts:
  """The counts of a config's training step."""
  system, optimizer = build.system(config), build.optimizer(config)
  state, examples = training_step.abstract_inputs(config, system, optimizer)
  step = training_step.make_train_step(config, system, optimizer)
  flops, moved = of_products(jax.make_jaxpr(step)(state, examples).jaxpr)
  return Counts(flops, moved, sum(x.size for x in jax.tree.leaves(state.params)))


def of_products(jaxpr: Jaxpr) -> tuple[float, float]:
  """FLOPs of a program's products, and the bytes of their operands and results.

  Loops of known length count as often as they run.
  """
  flops = moved = 0.0
  for equation in jaxpr.eqns:
    if equation.primitive.name in PRODUCTS:
      flops += 2.0 * _multiplications(equation)
      moved += sum(
        v.aval.size * v.aval.dtype.itemsize for v in (*equation.invars, *equation.outvars)
      )
    times = equation.params.get('length', 1) if equation.primitive.name == 'scan' else 1
    for inner in jaxprs_in_params(equation.params):
      more = of_products(inner)
      flops, moved = flops + times * more[0], moved + times * more[1]
  return flops, moved


def _multiplications(equation):
  """Of a product, without those by the zeros of padding and between dilated elements."""
  left, right, out = *(v.aval for v in equation.invars), equation.outvars[0].aval
  p = equation.params
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = p['dimension_numbers']
    return out.size * math.prod(left.shape[axis] for axis in contracted)
  numbers = p['dimension_numbers']
  axes = zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
  channels = right.shape[numbers.rhs_spec[1]]
  total = channels * math.prod(out.shape[axis] for axis in numbers.out_spec[:2])
  for i, (of_data, of_kernel, of_out) in enumerate(axes):
    sees = np.add.outer(
      np.arange(out.shape[of_out]) * p['window_strides'][i] - p['padding'][i][0],
      np.arange(right.shape[of_kernel]) * p['rhs_dilation'][i],
    )
    element, between = np.divmod(sees, p['lhs_dilation'][i])
    total *= np.sum((between == 0) & (element >= 0) & (element < left.shape[of_data]))
  return int(total)


def floors(counts: Counts, batch: int, duration: int, machine: str) -> dict[str, str]:
  """The floors of one machine, as a line of the table."""
  device, n = MACHINES[machine]
  arithmetic = counts.flops / n / device.flops
  memory = (counts.bytes / n + counts.optimizer_bytes) / device.memory
  network = 2 * (n - 1) / n * counts.gradient_bytes / device.network
  step = max(arithmetic, memory, network)
  return {
    'machine': machine,
    'arithmetic, ms': f'{1e3 * arithmetic:.3g}',
    'memory, ms': f'{1e3 * memory:.3g}',
    'network, ms': f'{1e3 * network:.3g}',
    'images/s, at most': f'{batch / step:,.0f}',
    f'{duration / 1e6:.4g} Mimg, hours, at least': f'{duration / batch * step / 3600:.3g}',
  }


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
