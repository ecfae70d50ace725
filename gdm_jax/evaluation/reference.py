"""Statistics of real images, computed once and kept in a file."""

import json
import pathlib
import re
import zlib

import jax
import numpy as np
import tqdm
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gdm_jax import build
from gdm_jax.config import MIN_EVALUATED
from gdm_jax.evaluation import archive
from gdm_jax.evaluation.features import Features
from gdm_jax.evaluation.moments import Moments
from gdm_jax.evaluation.summary import Collector, Summary, gather_to_host
from gdm_jax.runtime import distributed, sharding
from gdm_jax.runtime.batching import padded_batches
from gdm_jax.runtime.errors import ConfigError, DataError

ARRAYS = ('count', 'mean', 'scatter', 'kept', 'about')
ABOUT = ('features', 'identity', 'data', 'split', 'shape')


def describe(config: ConfigDict, features: Features) -> dict[str, str]:
  """What a config's statistics describe: features, data, split and shape."""
  split = config.evaluation.split or config.data.split
  shape = 'x'.join(map(str, config.data.shape))
  values = features.name, features.fingerprint, config.data.name, split, shape
  return dict(zip(ABOUT, values, strict=True))


def file_of(about: dict[str, str], folder: pathlib.Path) -> pathlib.Path:
  """The file of statistics in a folder."""
  words = '-'.join(about[key] for key in ('features', 'data', 'split'))
  readable = re.sub('[^A-Za-z0-9_-]+', '_', words).strip('_')
  # Splits such as train[:40] and train[40:] differ in nothing that a file name may hold.
  digest = zlib.crc32(words.encode())
  return folder / f'reference-{readable}-{digest:08x}.npz'


def obtain(
  config: ConfigDict, features: Features, folder: pathlib.Path, mesh: Mesh
) -> tuple[Summary, dict[str, str]]:
  """The statistics of `evaluation.reference`, or the folder's, or new ones; and their `describe`.

  Raises ConfigError if the named file holds statistics of other features, or a file is damaged,
  and DataError if the data do not exist.
  """
  wanted = describe(config, features)
  if named := config.evaluation.reference:
    summary, about = load(pathlib.Path(named).expanduser())
    for key in ('features', 'identity', 'shape'):
      if about[key] != wanted[key]:
        raise ConfigError(
          f'evaluation.reference = {named}: statistics of {key} {about[key]}, not {wanted[key]}; '
          'make them with --mode=reference'
        )
    return summary, about
  file = file_of(wanted, folder)
  summary, about = load(file) if file.exists() else (None, None)
  if distributed.from_process_0(about == wanted):
    return summary, about
  summary = collect(config, features, mesh)
  save(file, summary, wanted)
  return summary, wanted


def collect(config: ConfigDict, features: Features, mesh: Mesh) -> Summary:
  """Statistics of the images of `evaluation.split`, in an order that does not follow the data's."""
  source = build.data_source(config, 'evaluation.split', memory_gib=0)
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
    about = json.loads(str(text))
    return Summary(Moments(int(count), mean, scatter), kept), {name: about[name] for name in ABOUT}
  except (ValueError, TypeError, KeyError) as error:
    raise ConfigError(
      f'{file} holds no statistics of --mode=reference, or is damaged: {error}'
    ) from None
