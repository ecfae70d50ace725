"""--mode=reference: the statistics of real images, for --mode=evaluate elsewhere."""

import pathlib

from ml_collections import ConfigDict

from gdm_jax import build
from gdm_jax.evaluation import reference
from gdm_jax.evaluation.evaluator import FOLDER
from gdm_jax.evaluation.features import load_features
from gdm_jax.runtime import console, sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.runtime.files import make_folder


def run(config: ConfigDict, workdir: pathlib.Path):
  """Writes the statistics of `evaluation.split` to `evaluation.reference`, or to the workdir.

  Existing statistics are replaced. Raises ConfigError and DataError.
  """
  make_folder(workdir)
  build.system(config)
  features = load_features(config, workdir / FOLDER)
  source = build.data_source(config, 'evaluation.split', memory_gib=0)
  about = reference.describe(config, features, source)
  named = config.evaluation.reference
  file = pathlib.Path(named).expanduser() if named else reference.file_of(about, workdir / FOLDER)
  make_folder(file.parent, f'evaluation.reference = {file}')
  if file.is_dir():
    raise ConfigError(f'evaluation.reference = {file} is a folder')
  summary = reference.collect(config, features, source, sharding.mesh())
  reference.save(file, summary, about)
  console.log(
    f'{features.name} of {summary.moments.count:,} images of {about["data"]}, {about["split"]}: '
    f'{file}'
  )
