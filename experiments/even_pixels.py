"""When groups help: images of which exactly half of the pixels have one hue, half the opposite one.

  python -m gdm_jax.main --config=configs/even_pixels.py
  python -m gdm_jax.main --config=configs/even_pixels_causal.py
  python -m experiments.even_pixels --config=configs/even_pixels.py \\
    --models=runs/even_pixels,runs/even_pixels_causal

The benchmark of Spatial Reasoning Models (Wewer et al. 2025), at 8 x 8. One model has learnt k = 1,
rows, columns, blocks, a cascade of lattices, and pixel by pixel, each drawn equally often, so all
have had the same training. Every strategy generates the images of `evaluation.seeds`, and --repeats
times as many, with as many evaluations of the network, --budgets. Counted as srmbench counts: the
share of images that are exactly even; results.csv also has how many pixels the others are off.
"""

import math
import pathlib

import numpy as np
import pandas as pd

from experiments.lib import command, shares
from gdm_jax.evaluation.even_pixels import evenness


def run(
  config, workdir: pathlib.Path, *, models: str = '', repeats: int = 1, budgets: str = '64,256'
):
  """Evaluates every strategy of every model. Raises ConfigError for a model of other data."""
  shares.run(RULE, __doc__, config, workdir, models, repeats, budgets)


def scores(x: shares.Images) -> dict[str, object]:
  """How even images are."""
  found = evenness(x)
  return {
    'pixels': math.prod(x.shape[1:3]),
    'even': int(np.sum(found.imbalance == 0)),
    'imbalance': float(found.imbalance.mean()),
    'saturation': float(found.saturation.mean()),
    'value': float(found.value.mean()),
  }


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  table, findings = shares.summarise(rows, 'even')
  pixels = int(rows['pixels'].iloc[0])
  chance = math.comb(pixels, pixels // 2) / 2**pixels
  return table, [
    *findings,
    f'If every pixel took one of the two hues by the toss of a coin, {100 * chance:.1f}% would be '
    'even. All of the data are.',
  ]


RULE = shares.Rule(
  'even_pixels', ('pixels', 'even', 'imbalance', 'saturation', 'value'), 'even', scores, summarise
)


if __name__ == '__main__':
  command.start(run, __doc__)
