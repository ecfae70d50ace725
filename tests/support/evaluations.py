"""--mode=evaluate, shrunk, and the rows that it leaves."""

import csv

from gdm_jax import main
from tests.support import runs

PIXELS = '--config.evaluation.features=pixels'
SEEDS = '--config.evaluation.seeds=0-69'
BATCH = '--config.sampling.batch=35'


def command(workdir, *overrides, mode='evaluate'):
  args = (f'--mode={mode}', PIXELS, SEEDS, BATCH, *overrides)
  return main.main(['', *runs.arguments(workdir, *args, steps=8)])


def rows(workdir):
  file = workdir / 'evaluation.csv'
  if not file.exists():
    return []
  with file.open(newline='') as f:
    return list(csv.DictReader(f))
