"""The identity of a workdir: its config must not change under a run, and generation adopts it."""

import importlib.metadata
import json
import pathlib
from collections.abc import Collection

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict

import gdm_jax
from gdm_jax.build import System
from gdm_jax.config import MODEL, RUN
from gdm_jax.runtime import files, sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training.checkpoint import Checkpoints

CONFIG = 'config.json'
PACKAGES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')

RENAMED = {
  **{f'model.{name}': f'model.ddpmpp.{name}' for name in ('multipliers', 'attention', 'dropout')},
  **{f'basis.{name}': f'basis.blur.{name}' for name in ('sigma', 'boundary')},
}
"""Keys of MODEL and RUN that older versions wrote, and what they are called now."""

RENAMED_BY_NETWORK = {
  'ddpmpp': {'model.channels': 'model.ddpmpp.channels', 'model.blocks': 'model.ddpmpp.blocks'},
  'mlp': {'model.channels': 'model.mlp.width', 'model.blocks': 'model.mlp.depth'},
}


def describe(config: ConfigDict) -> dict:
  """What a checkpoint records of its run: the resolved config and the versions of packages."""
  return {'config': json.loads(config.to_json()), 'versions': versions()}


def versions() -> dict[str, str]:
  """The versions of packages that a run is made with."""
  installed = {name: importlib.metadata.version(name) for name in PACKAGES}
  return {'gdm_jax': gdm_jax.__version__, **installed}


def write_config(config: ConfigDict, workdir: pathlib.Path):
  """Writes the resolved config to the workdir, atomically."""
  with files.atomic_write(workdir / CONFIG) as f:
    f.write(f'{config.to_json(indent=2)}\n'.encode())


def read_config(workdir: pathlib.Path) -> dict | None:
  """The workdir's MODEL and RUN by dotted key, with today's names; None if it has no config."""
  file = workdir / CONFIG
  return _flatten(json.loads(file.read_text())) if file.exists() else None


def _flatten(tree):
  renamed = {**RENAMED, **RENAMED_BY_NETWORK.get(tree['model']['name'], {})}
  values = {renamed.get(key, key): value for key, value in flatten_dict(tree, sep='.').items()}
  return {key: value for key, value in values.items() if key.split('.')[0] in MODEL + RUN}


def check_unchanged(config: ConfigDict, workdir: pathlib.Path, sections: Collection[str]):
  """Raises ConfigError naming the keys of these sections in which the workdir's config differs.

  A run may be made longer. Keys that one of the two does not know do not count, unless they are
  strategies.
  """
  old = read_config(workdir)
  if old is None:
    return
  new = _flatten(json.loads(config.to_json()))
  changed = [
    f'{key} = {new.get(key)} (there {old.get(key)})'
    for key in sorted({*old, *new})
    if key.split('.')[0] in sections
    and old.get(key) != new.get(key)
    and ((key in old and key in new) or key.startswith('strategies.'))
    and not (key == 'train.duration' and new[key] > old[key])
  ]
  if changed:
    raise ConfigError(
      f'{workdir} holds a run with another config: {", ".join(changed)}; '
      'take another --workdir or the same config'
    )


def adopt_config(config: ConfigDict, workdir: pathlib.Path, explicit: Collection[str]):
  """Takes MODEL and RUN from the workdir, except the keys that are named explicitly.

  So a run with overrides can be sampled without repeating them.
  """
  saved = read_config(workdir)
  if saved is None:
    return
  saved = {key: tuple(v) if isinstance(v, list) else v for key, v in saved.items()}
  strategies = {key: value for key, value in saved.items() if key.startswith('strategies.')}
  if not any(key.startswith('strategies.') for key in explicit):
    config.strategies = ConfigDict(unflatten_dict(strategies, sep='.')['strategies'])
  known = _flatten(json.loads(config.to_json())).keys() - set(explicit) - strategies.keys()
  config.update_from_flattened_dict({key: saved[key] for key in known & saved.keys()})


def load_ema(
  config: ConfigDict, workdir: pathlib.Path, system: System, mesh: Mesh
) -> tuple[dict, int]:
  """The EMA parameters of `checkpoint.load`, or of the newest step, on every device; and the step.

  Raises ConfigError if the workdir holds no such checkpoint, or one of another model.
  """
  check_unchanged(config, workdir, MODEL)
  if (workdir / 'checkpoints').is_dir():
    layout = sharding.replicated(mesh)
    target = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout),
      jax.eval_shape(system.predictor.init, jax.random.key(0)),
    )
    with Checkpoints(workdir) as checkpoints:
      steps, wanted = checkpoints.steps(), config.checkpoint.load
      if wanted and wanted not in steps:
        raise ConfigError(f'checkpoint.load = {wanted}: {workdir} holds {steps}')
      if steps:
        return checkpoints.restore_ema(target, wanted)
  raise ConfigError(f'--workdir={workdir} holds no checkpoint; train first')
