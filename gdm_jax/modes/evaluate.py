"""--mode=evaluate and --mode=reference: how good samples are, and what they are compared with."""

import pathlib

from ml_collections import ConfigDict

from gdm_jax import build
from gdm_jax.evaluation import evaluator, features, reference
from gdm_jax.modes import common
from gdm_jax.runtime import console, distributed, sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training.checkpoint import trained

FOLDER = 'evaluation'  # in the workdir: the classifier and the statistics


def run(config: ConfigDict, workdir: pathlib.Path):
  """Appends the row of `checkpoint.load` to evaluation.csv and prints it.

  A row that is there already is printed and not measured again. Raises ConfigError, DataError and
  DivergedError.
  """
  system, mesh = build.system(config), sharding.mesh()
  build.sampling_table(config, system.strategies)
  weights = evaluator.Checkpoint(*trained(config, workdir, system, mesh))
  common.make_workdir(workdir)
  evaluation = evaluator.Evaluator(config, system, workdir / FOLDER, mesh)
  rows = evaluator.open_csv(workdir)
  known = evaluation.key(config, weights) in rows
  row = evaluator.evaluate(config, evaluation, weights, rows)
  if distributed.is_primary():
    print(evaluator.describe(row), flush=True)
  console.log(f'{"it was in" if known else "see"} {workdir}/evaluation.csv')


def make_reference(config: ConfigDict, workdir: pathlib.Path):
  """Writes the statistics of `evaluation.split` to `evaluation.reference`, or to the workdir.

  Statistics that are there are made anew. Raises ConfigError and DataError.
  """
  common.make_workdir(workdir)
  build.system(config)
  found = features.load_features(config, workdir / FOLDER)
  about = reference.describe(config, found)
  named = config.evaluation.reference
  file = pathlib.Path(named).expanduser() if named else reference.file_of(about, workdir / FOLDER)
  common.make_workdir(file.parent, f'evaluation.reference = {file}')
  if file.is_dir():
    raise ConfigError(f'evaluation.reference = {file} is a folder')
  summary = reference.collect(config, found, sharding.mesh())
  reference.save(file, summary, about)
  console.log(
    f'{found.name} of {summary.moments.count:,} images of {about["data"]}, {about["split"]}: {file}'
  )
