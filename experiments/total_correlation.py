"""Remark 4.1: whether the latents of real images are independent, as those of an exact model are.

  python -m gdm_jax.main --config=configs/digits_frequency.py --config.data.split=train[:80%]
  python -m experiments.total_correlation --config=configs/digits_frequency.py \\
    --config.evaluation.split=train[80%:]

Encodes --images real images of evaluation.split (0: all), dequantised by uniform noise as for the
likelihood, and takes the --ranks lowest components of all channels (0: all) in the basis. The total
correlation of Gaussians with their correlation matrix R, -ln det R / 2 nats, measures their linear
dependence. For n examples of independent components it is not 0, but its mean and deviation are
known exactly, since det R is then a product of independent beta variables; `excess` is what exceeds
that mean. Of the marginals: the share of components for which a Kolmogorov-Smirnov test rejects
N(0, 1) at 5% (expected: 5%), the mean and the largest distance of their deviations from 1, and the
mean excess kurtosis. The same is measured of the data themselves and, as a check, of white noise.
figure.png has R of data and latents, and their quantiles against the normal's.
"""

import pathlib

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import pyplot as plt
from scipy import special, stats

from experiments.lib import command
from experiments.lib.subject import READ, Subject, data_name
from gdm_jax import figures
from gdm_jax.basis import Basis
from gdm_jax.runtime.errors import ConfigError, DivergedError

VALUES = (
  *('total_correlation', 'independent', 'deviation', 'excess', 'excess_deviations'),
  *('not_normal', 'scale_error', 'largest_scale_error', 'kurtosis'),
)
LEVEL = 0.05  # of the test of the marginals


def run(config, workdir: pathlib.Path, *, images: int = 0, ranks: int = 0):
  """Measures data, latents and noise. Raises ConfigError for too few images."""
  keys = 'images', 'ranks', 'of'
  subject = Subject('total_correlation', config, workdir, keys, VALUES, perceived=False)
  subject.require_frequency_basis()
  channels = subject.config.data.shape[-1]
  n, size = images or len(subject.source), subject.basis.ranks.size
  ranks = ranks or size
  if ranks > size:
    raise ConfigError(f'--ranks={ranks}: the basis has {size}')
  if ranks * channels < 2:
    raise ConfigError(f'--ranks={ranks}: one component alone has no correlation')
  if not ranks * channels < n - 1:
    fewer = f', or --ranks={(n - 2) // channels}' if n - 2 >= channels else ''
    raise ConfigError(
      f'--images={n}: so few cannot tell the correlation of {ranks} x {channels} components; '
      f'--images must be at least {ranks * channels + 2}{fewer}'
    )
  components = components_of(subject, n, ranks)
  cells = [{'images': n, 'ranks': ranks, 'of': name} for name in components]
  rows = subject.measure(lambda images, ranks, of: describe(components[of]), cells)
  picture = subject.folder / 'figure.png'
  draw(picture, components)
  subject.publish(__doc__, *summarise(rows, channels), [picture], rows)


def components_of(subject: Subject, n: int, ranks: int) -> dict[str, Float[np.ndarray, 'n d']]:
  """The lowest components of dequantised images, of their latents, and of noise."""
  numbers, width = subject.choose_images(n), subject.source.bin_width
  rng, parts = np.random.default_rng(0), {'data': [], 'latents': [], 'noise': []}
  for batch in np.split(numbers, range(READ, n, READ)):
    x, _ = subject.load(batch)
    x = (x + width * (rng.random(x.shape) - 0.5)).astype(np.float32)
    z = subject.encode(x)
    noise = rng.normal(size=x.shape).astype(np.float32)
    for name, part in (('data', x), ('latents', getattr(z, 'x', z)), ('noise', noise)):
      parts[name].append(lowest(subject.basis, part, ranks))
  return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def summarise(rows: pd.DataFrame, channels: int = 1) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings; channels: of the images, which the rows do not tell."""
  first = rows.iloc[0]
  values = rows.set_index('of')[list(VALUES)].astype(float)
  data, latents = values.loc['data'], values.loc['latents']
  return rows[['of', *VALUES]], [
    f'{int(first["ranks"]) * channels} components of {first["images"]} images of '
    f'{data_name(rows)}. Independent ones would have '
    f'a total correlation of {latents["independent"]:.3g} ± {latents["deviation"]:.2g} nats for so '
    f'many images; the data have {data["total_correlation"]:.3g}, the latents '
    f'{latents["total_correlation"]:.3g}: {latents["excess"] / data["excess"]:.1%} of the excess '
    'is left.'
  ]


def lowest(basis: Basis, x: Float[np.ndarray, 'n *grid c'], ranks: int) -> Float[np.ndarray, 'n d']:
  """The coefficients of the lowest ranks, by rank, those of the channels side by side."""
  places = np.argsort(basis.ranks, axis=None)[:ranks]
  c = np.asarray(basis.analyze(x), np.float64)
  return c.reshape(len(x), -1, c.shape[-1])[:, places].reshape(len(x), -1)


def describe(c: Float[np.ndarray, 'n d']) -> dict[str, float]:
  """VALUES of n examples of d components."""
  correlation = total_correlation(c)
  if not np.isfinite(correlation):
    raise DivergedError('total correlation: a component never varies, or follows from others')
  mean, deviation = if_independent(*c.shape)
  scale = np.abs(c.std(axis=0, ddof=1) - 1)
  tested = stats.kstest(c, 'norm', axis=0).pvalue
  return {
    'total_correlation': correlation,
    'independent': mean,
    'deviation': deviation,
    'excess': correlation - mean,
    'excess_deviations': (correlation - mean) / deviation,
    'not_normal': float(np.mean(tested < LEVEL)),
    'scale_error': float(scale.mean()),
    'largest_scale_error': float(scale.max()),
    'kurtosis': float(np.mean(stats.kurtosis(c, axis=0, bias=False))),
  }


def total_correlation(c: Float[np.ndarray, 'n d']) -> float:
  """-ln det R / 2, in nats, of the correlation matrix R of n > d examples of d components."""
  return float(-np.linalg.slogdet(np.corrcoef(c, rowvar=False))[1] / 2)


def if_independent(n: int, d: int) -> tuple[float, float]:
  """Mean and deviation of `total_correlation` for n examples of d independent normal components.

  det R of n examples is a product of independent Beta((n - 1 - i) / 2, i / 2), i = 1..d-1
  (Anderson, An Introduction to Multivariate Statistical Analysis, Section 9.3).
  """
  i = np.arange(1, d)
  half = (n - 1) / 2
  mean = (special.digamma(half) - special.digamma(half - i / 2)).sum() / 2
  variance = (special.polygamma(1, half - i / 2) - special.polygamma(1, half)).sum() / 4
  return float(mean), float(np.sqrt(variance))


def draw(file: pathlib.Path, components: dict[str, Float[np.ndarray, 'n d']]):
  """Correlations of data and latents, by rank; quantiles of all their components."""
  figure, axes = plt.subplots(1, 3, figsize=(12, 4), dpi=120, layout='constrained')
  for axis, name in zip(axes, ('data', 'latents'), strict=False):
    c = components[name]
    r = np.corrcoef(c, rowvar=False)
    np.fill_diagonal(r, 0)
    image = axis.imshow(r, cmap='RdBu', vmin=-0.5, vmax=0.5)
    axis.set_title(f'{name}: correlations, the diagonal left out')
  figure.colorbar(image, ax=axes[:2].tolist(), shrink=0.8)
  for name, c in components.items():
    values = np.sort(c.ravel())
    levels = (np.arange(len(values)) + 0.5) / len(values)
    places = np.unique(np.linspace(0, len(values) - 1, 500).astype(int))
    axes[2].plot(special.ndtri(levels[places]), values[places], label=name)
  axes[2].axline((0, 0), slope=1, color='black', lw=0.8, ls='--')
  axes[2].set(xlabel='quantile of N(0, 1)', ylabel='quantile of all components')
  axes[2].legend()
  figures.finish(figure, file)


if __name__ == '__main__':
  command.start(run, __doc__)
