"""Variants of a config: models that differ in a few of its keys, from several seeds of training."""

import pathlib
from collections.abc import Mapping, Sequence

import pandas as pd

from experiments.lib.study import distances_as_text, spread_caption, statistics, train
from gdm_jax import figures


def train_all(
  workdir: pathlib.Path,
  arguments: Sequence[str],
  variants: Mapping[str, Sequence[str]],
  first_seed: int,
  seeds: int,
) -> list[pathlib.Path]:
  """Trains the variants, given by their arguments, from several seeds each (`study.train`).

  Returns their workdirs workdir/trained/VARIANT-SEED, whose names `names` takes apart.
  """
  folders = []
  for name, overrides in variants.items():
    for seed in range(first_seed, first_seed + seeds):
      folders.append(workdir / 'trained' / f'{name}-{seed}')
      train(folders[-1], [*arguments, *overrides, f'--config.seed={seed}'])
  return folders


def names(rows: pd.DataFrame) -> pd.Series:
  """The variant of each row's model (`train_all`)."""
  return rows['model'].str.rpartition('-')[0]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
  """`study.statistics` of each variant."""
  return statistics(rows.assign(variant=names(rows)), 'variant')


def table(rows: pd.DataFrame, name: str) -> pd.DataFrame:
  """A line for each variant, in a column of that name, and its distances."""
  found, of_variant = summary(rows), rows.groupby(names(rows), sort=False)[['distance']]
  return pd.DataFrame(
    {
      name: found.index,
      rows['metric'].iloc[0]: found['text'].to_numpy(),
      'kernel distance': found['kernel'].to_numpy(),
      'of': of_variant.apply(distances_as_text).to_numpy(),
    }
  )


def ranking(rows: pd.DataFrame) -> str:
  """The variants by their mean distance, as a sentence."""
  ranked = summary(rows).sort_values('mean', kind='stable').index
  return f'From low to high {rows["metric"].iloc[0]}: {", ".join(ranked)}.'


def caption(rows: pd.DataFrame) -> str:
  """What the deviations are over, as a sentence; every variant has as many models."""
  of_variant = names(rows)
  return spread_caption(rows[of_variant == of_variant.iloc[0]])


def draw(file: pathlib.Path, rows: pd.DataFrame):
  """A bar for each variant."""
  found = summary(rows)
  means, deviations = list(found['mean']), list(found['deviation'])
  figures.plot_bars(file, list(found.index), means, deviations, ylabel=rows['metric'].iloc[0])
