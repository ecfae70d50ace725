"""Which loss: Eq. 8 unweighted, Eq. 7 (velocity), or Eq. 8 on the active group alone.

  python -m experiments.loss_weighting --config=configs/digits.py --config.evaluation.seeds=0-999

Trains models on each weighting from --seeds training seeds, in workdir/trained/, unless they exist.
They differ in train.weighting alone, and each is evaluated from --repeats sets of seeds. The paper
trains on Eq. 8 unweighted, and so does every other experiment here.
"""

import pathlib
from collections.abc import Sequence

import pandas as pd

from experiments.lib import command, variants
from experiments.lib.study import Study

WEIGHTINGS = ('unweighted', 'velocity', 'active')


def run(
  config, workdir: pathlib.Path, arguments: Sequence[str], *, seeds: int = 3, repeats: int = 3
):
  """Trains models on each weighting from several seeds."""
  command.refuse(arguments, 'train.weighting', 'seed')
  overrides = {w: [f'--config.train.weighting={w}'] for w in WEIGHTINGS}
  folders = variants.train_all(workdir, arguments, overrides, config.seed, seeds)
  study, rows = Study('loss_weighting', workdir, judge=config.evaluation.features), []
  for model in study.models(config, folders):
    rows += study.measure(model, repeats)
  rows = pd.DataFrame(rows)
  picture = study.folder / 'figure.png'
  variants.draw(picture, rows)
  study.publish(__doc__, *summarise(rows), [picture], rows, model.config)


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table and the findings."""
  table = variants.table(rows, 'weighting')
  return table, [variants.ranking(rows), variants.caption(rows)]


if __name__ == '__main__':
  command.start(run, __doc__, trained=False)
