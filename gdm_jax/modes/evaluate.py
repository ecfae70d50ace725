"""--mode=evaluate: how good samples are."""

import pathlib

from ml_collections import ConfigDict

from gdm_jax import build
from gdm_jax.evaluation import evaluator
from gdm_jax.runtime import console, distributed, sharding
from gdm_jax.runtime.files import make_folder
from gdm_jax.training.workdir import load_ema


def run(config: ConfigDict, workdir: pathlib.Path):
  """Appends the row of `checkpoint.load` to evaluation.csv and prints it.

  A row that exists is printed and not measured again. Raises ConfigError, DataError and
  DivergedError.
  """
  system, mesh = build.system(config), sharding.mesh()
  build.check_sampling(config, system)
  checkpoint = evaluator.Checkpoint(*load_ema(config, workdir, system, mesh))
  make_folder(workdir)
  evaluation = evaluator.Evaluator(config, system, workdir / evaluator.FOLDER, mesh)
  cells = evaluator.open_csv(workdir)
  known = evaluation.key(config, checkpoint) in cells
  row = evaluator.evaluate(config, evaluation, checkpoint, cells)
  if distributed.is_primary():
    print(evaluator.describe(row), flush=True)
  console.log(f'{"it was in" if known else "see"} {workdir}/evaluation.csv')
