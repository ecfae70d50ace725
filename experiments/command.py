"""The command line of experiments with a trained model: that of gdm_jax, for one workdir."""

import pathlib
import sys
from collections.abc import Callable

from ml_collections import ConfigDict

from gdm_jax import main
from gdm_jax.config import ConfigError
from gdm_jax.data.sources import DataError
from gdm_jax.training.checkpoint import adopt_model


def start(run: Callable[[ConfigDict, pathlib.Path], None], doc: str, trained: bool = True):
  """Calls run(config, workdir); if `trained`, the model is as the workdir's config describes it.

  --help prints `doc`; bad input ends in one line and exit code 2, as in gdm_jax.main.
  """
  if {'--help', '-h'} & set(sys.argv) or len(sys.argv) == 1:
    print(doc.strip())
    return
  try:
    config, workdir = main.parse(sys.argv)[:2]
    main.split_cpu(config.cpu_devices)
    if trained:
      adopt_model(config, workdir, main.overridden(sys.argv))
    run(config, workdir)
  except (main.UsageError, ConfigError, DataError) as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
