"""When order shows: two digits side by side that add up to nine.

  python -m gdm_jax.main --config=configs/digit_pairs.py
  python -m experiments.digit_pairs --config=configs/digit_pairs.py

One model has learnt k = 1, the halves (one digit, then the other), rows, and the same four columns
in two orders: one digit after the other, or the left halves of both first. Every strategy generates
the images of `evaluation.seeds`, and --repeats times as many, with as many evaluations of the
network, --budgets. A digit is what its nearest neighbour in the data set `digits` is, and an image
is right if the two add up to nine.
"""

import pathlib

import numpy as np
import pandas as pd
from jaxtyping import Int

from experiments.lib import command, shares
from gdm_jax.data import arrays
from gdm_jax.data.base import ArraySource


def run(
  config, workdir: pathlib.Path, *, models: str = '', repeats: int = 2, budgets: str = '16,64'
):
  """Evaluates every strategy of every model. Raises ConfigError for a model of other data."""
  shares.run(RULE, __doc__, config, workdir, models, repeats, budgets)


def scores(x: shares.Images) -> dict[str, object]:
  """How many images add up to nine, and how often a digit of the data is told by its neighbour."""
  digits = arrays.digits()
  left, right = (_nearest(half, digits, 0) for half in np.split(x, 2, axis=2))
  return {
    'right': int(np.sum(left + right == arrays.TOTAL)),
    'accuracy': float(np.mean(_nearest(digits.x, digits, 1) == digits.label)),
  }


def _nearest(x: shares.Images, digits: ArraySource, rank: int) -> Int[np.ndarray, ' n']:
  """The labels of the nearest digits, or of those next to them; digits themselves have rank 0."""
  flat = digits.x.reshape(len(digits), -1)
  distances = (flat**2).sum(1) - 2 * x.reshape(len(x), -1) @ flat.T  # but for that of x
  return digits.label[np.argsort(distances, axis=1)[:, rank]]


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  table, findings = shares.summarise(rows, 'right')
  accuracy = float(rows['accuracy'].iloc[0])
  return table, [
    *findings,
    f'{100 * accuracy:.1f}% of single digits are of the class of their nearest neighbour; digits '
    'that know nothing of each other would be right in about 10%.',
  ]


RULE = shares.Rule('digit_pairs', ('right', 'accuracy'), 'right', scores, summarise)


if __name__ == '__main__':
  command.start(run, __doc__)
