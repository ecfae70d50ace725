"""Fig. 12: the lowest basis images of the blur and cosine bases, and what a basis costs.

  python -m experiments.bases --config=configs/celebahq256_frequency.py

Draws the --shown lowest basis images on the grid of data.shape, by rank; the blur is that of the
config's basis.blur.sigma with both boundaries. Measures of each basis: the largest entry of
U^T U - I in float32; the seconds that U^T and U take on a batch of --batch images, the median of 7,
and those of the config's network forward; the FLOPs of both as XLA counts them; and the MiB that
XLA allocates besides input and output, and those of a dense U of d x d entries. A network for 256 x
256 takes seconds an image on a CPU. A basis is measured once on a device.
"""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.benchmarks.throughput import median
from experiments.lib import command, report
from gdm_jax import basis as bases
from gdm_jax import build, figures
from gdm_jax.basis import Basis
from gdm_jax.build import System
from gdm_jax.config import blaming
from gdm_jax.evaluation.cells import Cells
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training import flops

REPEATS = 7
KEYS = 'basis', 'sigma', 'shape', 'batch', 'parameters', 'dtype', 'device'
VALUES = (
  *('orthogonality_error', 'seconds', 'network_seconds', 'share'),
  *('flop', 'network_flop', 'flop_share', 'temporary_mib', 'dense_mib'),
)


def run(config, workdir: pathlib.Path, *, batch: int = 1, shown: int = 16):
  """Measures and draws each basis. Raises ConfigError for data that are no images."""
  *grid, _ = shape = config.data.shape
  if not figures.is_image(shape):
    raise ConfigError(f'data.shape = {shape}: only bases of images are drawn')
  count = min(shown, math.prod(grid))
  compared, left_out = all_bases(grid, config.basis.blur.sigma)
  folder = workdir / 'bases'
  rows = measure(config, compared, batch, Cells(folder / 'results.csv', KEYS, VALUES))
  picture = draw(folder, compared, count)
  table, findings = summarise(rows, count)
  report.publish(folder, __doc__, table, [*left_out, *findings], [picture], rows, config)


def all_bases(grid, sigma: float) -> tuple[dict[str, Basis], list[str]]:
  """The bases by name; and which is left out, and why. Raises ConfigError."""
  left_out = []
  with blaming('basis.blur.sigma', sigma):
    compared = {'cosine': bases.cosine(grid), 'blur, reflect': bases.blur(grid, sigma, 'reflect')}
  try:
    compared['blur, zero'] = bases.blur(grid, sigma, 'zero')
  except ValueError as error:
    left_out.append(f'The blur with a zero boundary is left out: {error}.')
  return compared, left_out


def measure(config, compared: dict[str, Basis], batch: int, cells: Cells) -> pd.DataFrame:
  """The row of each basis."""
  system, shape = build.system(config), config.data.shape
  network = functools.cache(lambda: network_cost(config, system, batch))
  weights = jax.tree.leaves(jax.eval_shape(system.predictor.init, jax.random.key(0)))
  common = {
    **{'sigma': config.basis.blur.sigma, 'shape': 'x'.join(map(str, shape)), 'batch': batch},
    **{'parameters': sum(x.size for x in weights), 'dtype': config.model.dtype},
    'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
  }

  def costs(basis):
    measured = {**cost(basis, (batch, *shape)), **network()}
    measured['share'] = measured['seconds'] / measured['network_seconds']
    measured['flop_share'] = measured['flop'] / measured['network_flop']
    return {name: f'{value:.4g}' for name, value in measured.items()}

  rows = [
    cells.measure({'basis': name, **common}, functools.partial(costs, basis))
    for name, basis in compared.items()
  ]
  return pd.DataFrame(rows)


def summarise(rows: pd.DataFrame, count: int) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings; count: of the basis images in the figure."""
  first = rows.iloc[0]
  height, width, _ = first['shape'].split('x')
  return rows[['basis', *VALUES]], [
    f'The {count} lowest basis images of {height} x {width}, each scaled to its largest value; '
    f'U^T and U together beside a forward pass of the network, {first["batch"]} at once.'
  ]


def draw(folder: pathlib.Path, compared: dict[str, Basis], count: int) -> pathlib.Path:
  """figure.png: the lowest images of each basis."""
  lines = [
    (name, [(f'{rank}', image) for rank, image in enumerate(lowest(basis, count))])
    for name, basis in compared.items()
  ]
  figures.sheet(folder / 'figure.png', lines)
  return folder / 'figure.png'


def lowest(basis: Basis, count: int) -> list[np.ndarray]:
  """Basis images [h, w, 1] of the lowest ranks, scaled to a largest value of 1."""
  one_hot = np.asarray(basis.ranks) == np.arange(count)[:, None, None]
  images = np.asarray(basis.synthesize(jnp.asarray(one_hot, jnp.float32)[..., None]))
  return [image / np.abs(image).max() for image in images]


def cost(basis: Basis, shape: tuple[int, ...]) -> dict[str, float]:
  """What U^T and U cost on data of a shape, and how far U is from orthogonal, in float32."""

  @jax.jit
  def there_and_back(x):
    return basis.synthesize(basis.analyze(x))

  program = there_and_back.lower(jnp.zeros(shape)).compile()
  x = jax.random.normal(jax.random.key(0), shape)
  size = basis.ranks.size
  return {
    'orthogonality_error': orthogonality_error(basis),
    'seconds': median(lambda: program(x), REPEATS),
    'flop': program.cost_analysis()['flops'],
    'temporary_mib': program.memory_analysis().temp_size_in_bytes / 2**20,
    'dense_mib': size**2 * 4 / 2**20,
  }


def network_cost(config, system: System, batch: int) -> dict[str, float]:
  """A forward pass of the config's network, parameters as they are initialised."""
  params = jax.jit(system.predictor.init)(jax.random.key(0))
  alpha = jnp.full((batch, system.process.grouping.num_groups), 0.5)
  x = jnp.zeros((batch, *config.data.shape))
  program = jax.jit(system.predictor).lower(params, x, alpha).compile()
  return {
    'network_seconds': median(lambda: program(params, x, alpha), REPEATS),
    'network_flop': flops.network(config, system, batch),
  }


def orthogonality_error(basis: Basis) -> float:
  """The largest entry of U^T U - I in float32, from the Gram matrices of the axes alone."""
  products = [
    np.asarray(jnp.matmul(f.T, f, precision='highest'), np.float64)
    for f in (jnp.asarray(f, jnp.float32) for f in basis.factors)
  ]
  first, second = ([np.diagonal(g), np.abs(g - np.diag(np.diagonal(g)))] for g in products)
  diagonal = np.abs(np.outer(first[0], second[0]) - 1).max()
  off_diagonal = max(first[1].max() * second[0].max(), second[1].max() * first[0].max())
  return float(max(diagonal, off_diagonal))


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
