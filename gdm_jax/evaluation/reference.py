"""Statistics of real images, computed once and kept in a file."""

import json
import pathlib

import jax
import numpy as np
import tqdm
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gdm_jax import build
from gdm_jax.config import MIN_EVALUATED
from gdm_jax.data.base import Source
from gdm_jax.data.contents import Contents
from gdm_jax.evaluation import archive
from gdm_jax.evaluation.features import Features
from gdm_jax.evaluation.moments import Moments
from gdm_jax.evaluation.summary import Collector, Summary, gather_to_host
from gdm_jax.runtime import distributed, sharding
from gdm_jax.runtime.batching import padded_batches
from gdm_jax.runtime.errors import ConfigError, DataError

ARRAYS = ('count', 'mean', 'scatter', 'kept', 'about')
INCEPTION = 2048  # features that FID compares
ABOUT = ('features', 'identity', 'data', 'split', 'shape', 'fingerprint')
IDENTITY = ('features', 'identity', 'shape', 'fingerprint')
"""What must agree for statistics to be used again; the same data may lie elsewhere."""


def describe(config: ConfigDict, features: Features, source: Source) -> dict[str, str]:
  """What the statistics of a source describe: features, data, split, shape, and fingerprints."""
  split = config.evaluation.split or config.data.split
  shape = 'x'.join(map(str, config.data.shape))
  fingerprint = Contents.of(source).fingerprint
  values = features.name, features.fingerprint, config.data.name, split, shape, fingerprint
  return dict(zip(ABOUT, values, strict=True))


def file_of(about: dict[str, str], folder: pathlib.Path) -> pathlib.Path:
  """The file of statistics in a folder."""
  return folder / f'reference-{about["features"]}-{about["fingerprint"]}.npz'


def obtain(
  config: ConfigDict, features: Features, folder: pathlib.Path, mesh: Mesh
) -> tuple[Summary, dict[str, str]]:
  """The statistics of `evaluation.reference`, or the folder's, or new ones; and their `describe`.

  `evaluation.reference` may also be a file of EDM's `fid-refs`: mean and covariance of Inception's
  features, without features for the other distances.

  Raises ConfigError if the named file holds statistics of other features, or a file is damaged, and
  DataError if the data do not exist.
  """
  if named := config.evaluation.reference:
    shape = 'x'.join(map(str, config.data.shape))
    wanted = {'features': features.name, 'identity': features.fingerprint, 'shape': shape}
    summary, about = _load_any(pathlib.Path(named).expanduser(), wanted)
    for key in wanted:
      if about[key] != wanted[key]:
        raise ConfigError(
          f'evaluation.reference = {named}: statistics of {key} {about[key]}, not {wanted[key]}; '
          'make them with --mode=reference'
        )
    return summary, about
  source = build.data_source(config, 'evaluation.split', memory_gib=0, check=False)
  wanted = describe(config, features, source)
  file = file_of(wanted, folder)
  summary, about = load(file) if file.exists() else (None, {})
  if distributed.from_process_0(all(about.get(key) == wanted[key] for key in IDENTITY)):
    return summary, wanted
  summary = collect(config, features, source, mesh)
  save(file, summary, wanted)
  return summary, wanted


def _load_any(file, wanted):
  """Statistics of --mode=reference, or EDM's. Raises ConfigError."""
  try:
    arrays = archive.read(file)
  except archive.Damaged:
    arrays = {}
  if not {'mu', 'sigma'} <= arrays.keys():
    return load(file)
  mean, covariance = (np.asarray(arrays[name], np.float64) for name in ('mu', 'sigma'))
  d = len(mean) if mean.ndim == 1 else 0
  if wanted['features'] != 'inception' or covariance.shape != (d, d) or d != INCEPTION:
    raise ConfigError(
      f'evaluation.reference = {file}: mu {mean.shape} and sigma {covariance.shape} of EDM are '
      f'those of {INCEPTION} features of inception; evaluation.features = {wanted["features"]!r}'
    )
  # The covariance of two features is their scatter; the file does not say how many it is of.
  summary = Summary(Moments(2, mean, covariance), np.zeros((0, d), np.float32))
  fingerprint = archive.digest({'mu': mean, 'sigma': covariance})
  return summary, {**wanted, 'data': file.name, 'split': '', 'fingerprint': fingerprint}


def collect(config: ConfigDict, features: Features, source: Source, mesh: Mesh) -> Summary:
  """Statistics of images, read in an order that does not follow the data's.

  Raises DataError and ConfigError.
  """
  source.check()
  if len(source) < MIN_EVALUATED:
    raise ConfigError(
      f'evaluation.split = {config.evaluation.split!r}: {len(source)} images of '
      f'{config.data.name} are too few; {MIN_EVALUATED} are the least'
    )
  extract, collector = features.jitted(mesh), Collector()
  shuffled = np.random.default_rng(0).permutation(len(source))
  with tqdm.tqdm(
    total=len(source), desc='reference', unit=' images', unit_scale=True, disable=None
  ) as bar:
    for batch, valid in padded_batches(len(source), config.sampling.batch, mesh.size):
      indices = shuffled[batch]
      # Every process reads its share of the batch.
      share = np.split(indices, jax.process_count())[jax.process_index()]
      examples = sharding.shard_batch({'x': source[share]['x']}, mesh)
      extracted, finite = extract(examples['x'])
      if not (flags := gather_to_host(finite)[:valid]).all():
        first = indices[np.argmin(flags)]
        raise DataError(f'{config.data.name} holds NaN or infinity, first seen in example {first}')
      collector.add(extracted, slice(0, valid))
      bar.update(valid)
  return collector.summary()


def save(file: pathlib.Path, summary: Summary, about: dict[str, str]):
  """Writes statistics, whole or not at all, by process 0."""
  if distributed.is_primary():
    m = summary.moments
    values = m.count, m.mean, m.scatter, summary.kept, json.dumps(about)
    archive.write(file, **dict(zip(ARRAYS, values, strict=True)))


def load(file: pathlib.Path) -> tuple[Summary, dict[str, str]]:
  """Statistics and their `describe`. Raises ConfigError if the file has none."""
  try:
    arrays = archive.read(file)
    count, mean, scatter, kept, text = (arrays[name] for name in ARRAYS)
    about = {'fingerprint': '', **json.loads(str(text))}  # older versions knew no fingerprint
    return Summary(Moments(int(count), mean, scatter), kept), {name: about[name] for name in ABOUT}
  except (ValueError, TypeError, KeyError) as error:
    raise ConfigError(
      f'{file} holds no statistics of --mode=reference, or is damaged: {error}'
    ) from None
