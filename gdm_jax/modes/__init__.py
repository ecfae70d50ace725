"""What the command does: one module per mode, each with `run(config, workdir)`.

Modules are imported when they are needed, so that --help and a mistyped flag answer at once.
"""

import importlib
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict


class Mode(NamedTuple):
  """A value of --mode.

  help: for --help, one line or more. trained: the model is as the workdir's config.json says.
  """

  help: str
  trained: bool = True


MODES = {
  'train': Mode(
    'train, or resume where this workdir stopped (the default); writes samples.png,\n'
    'generation.gif, loss.png, metrics.jsonl, config.json and checkpoints/',
    trained=False,
  ),
  'sample': Mode(
    'write an image for each of config.sampling.seeds (such as 0-49999) to samples/;\n'
    'a rerun generates only those that are missing'
  ),
  'complete': Mode(
    'keep the known groups of config.complete.images (by number, or from a mask) and\n'
    'generate the rest, to completed/'
  ),
  'edit': Mode(
    'encode the pictures of config.edit.images, mix, interpolate, traverse or vary bands of\n'
    'their latents, and decode, to edited/'
  ),
  'likelihood': Mode('log p(x) of the data, in total and group by group, to likelihood/'),
  'evaluate': Mode(
    'FID, or a Frechet distance of other config.evaluation.features, of\n'
    'config.evaluation.seeds, as a row of evaluation.csv'
  ),
  'export': Mode(
    'write the model as a folder to share, to export/: parameters, config, a model card,\n'
    'a sample sheet and the sampler as a program; --model and gdm_jax.load take it'
  ),
  'reference': Mode('the statistics of real images that evaluate compares with, to a file'),
  'explore': Mode(
    'open a page on this machine with a slider for the latent of every group: change it\n'
    'and see the picture change'
  ),
}
"""By name, which is that of the module."""


def load(name: str) -> Callable[[ConfigDict, pathlib.Path], None]:
  """The `run` of a mode."""
  return importlib.import_module(f'gdm_jax.modes.{name}').run
