"""The identity of a workdir: config and data must not change under a run; other modes adopt it.

An export (`runtime.exported`) takes the place of the workdir where `checkpoint.model` names one.
"""

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
from gdm_jax.config import MODEL, RUN, blaming, resolve_labels
from gdm_jax.data.contents import Contents
from gdm_jax.models import naming
from gdm_jax.runtime import console, distributed, exported, files, sharding
from gdm_jax.runtime.errors import ConfigError, DataError
from gdm_jax.runtime.exported import Exported
from gdm_jax.training.checkpoint import Checkpoints

CONFIG = 'config.json'
DATA = 'data.json'
PACKAGES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')

RENAMED = {
  **{f'model.{name}': f'model.ddpmpp.{name}' for name in ('multipliers', 'attention', 'dropout')},
  **{f'basis.{name}': f'basis.blur.{name}' for name in ('sigma', 'boundary')},
}
"""Keys of MODEL and RUN that older versions wrote, and what they are called now."""

ADDED = {'overlap': 0.0, 'start': [], 'end': []}
"""Keys of a strategy that older versions did not write, and what they meant."""

RENAMED_BY_NETWORK = {
  'ddpmpp': {'model.channels': 'model.ddpmpp.channels', 'model.blocks': 'model.ddpmpp.blocks'},
  'mlp': {'model.channels': 'model.mlp.width', 'model.blocks': 'model.mlp.depth'},
}


def describe(config: ConfigDict, contents: Contents | None = None) -> dict:
  """What a checkpoint records of its run: the resolved config, the data, versions of packages."""
  data = contents and contents._asdict()
  return {'config': json.loads(config.to_json()), 'data': data, 'versions': versions()}


def versions() -> dict[str, str]:
  """The versions of packages that a run is made with."""
  installed = {name: importlib.metadata.version(name) for name in PACKAGES}
  return {'gdm_jax': gdm_jax.__version__, **installed}


def write_config(config: ConfigDict, contents: Contents, workdir: pathlib.Path):
  """Writes the resolved config and what the data hold to the workdir, each atomically."""
  _write(workdir / CONFIG, json.loads(config.to_json()))
  _write(workdir / DATA, contents._asdict())


def read_config(workdir: pathlib.Path) -> dict | None:
  """The workdir's MODEL and RUN by dotted key, with today's names; None if it has no config.

  A file that is damaged is written again from what the newest checkpoint knows of its run. Raises
  ConfigError if there is none.
  """
  return _read(workdir, CONFIG, 'config', _flatten)


def read_contents(workdir: pathlib.Path) -> Contents | None:
  """What the data of the workdir's run hold; None if older versions wrote it.

  A damaged file is written again, as in `read_config`.
  """
  return _read(workdir, DATA, 'data', Contents.from_json)


def check_contents(contents: Contents, workdir: pathlib.Path):
  """Raises DataError if the data are others than those that the workdir's run began with."""
  before = read_contents(workdir)
  if before and (difference := before.difference(contents)):
    raise DataError(
      f'{workdir} holds a run with other data: {difference}; take another --workdir or those data'
    )


def _read(workdir, name, key, parse):
  """The parsed content of a small file, which is rebuilt from the newest checkpoint if damaged."""
  file = workdir / name
  if not file.exists():
    return None
  try:
    return parse(json.loads(file.read_text()))
  except (ValueError, KeyError, TypeError, AttributeError):
    pass
  about = None
  if (workdir / 'checkpoints').is_dir():
    with Checkpoints(workdir) as checkpoints:
      about = checkpoints.about()
  if not (about and about.get(key)):
    raise ConfigError(f'{file} is damaged, and no checkpoint knows its content; remove it')
  console.log(f'{file} is damaged: written again from the newest checkpoint')
  if distributed.is_primary():
    _write(file, about[key])
  return parse(about[key])


def _write(file, tree):
  with files.atomic_write(file) as f:
    f.write(f'{json.dumps(tree, indent=2)}\n'.encode())


def _flatten(tree):
  renamed = {**RENAMED, **RENAMED_BY_NETWORK.get(tree['model']['name'], {})}
  values = {renamed.get(key, key): value for key, value in flatten_dict(tree, sep='.').items()}
  added = {f'strategies.{name}.{key}': v for name in tree['strategies'] for key, v in ADDED.items()}
  values = {**added, **values}
  return {key: value for key, value in values.items() if key.split('.')[0] in MODEL + RUN}


def check_unchanged(config: ConfigDict, workdir: pathlib.Path, sections: Collection[str]):
  """Raises ConfigError naming the keys of these sections in which the workdir's config differs.

  A run may be made longer, and its data may lie elsewhere (`check_contents` compares them). Keys
  that one of the two does not know do not count, unless they are strategies.
  """
  if old := read_config(workdir):
    free = {'data.name'} if (workdir / DATA).exists() else set()
    _require_same(config, old, sections, free, f'{workdir} holds a run', '--workdir')


def _require_same(config, old, sections, free, holder, take):
  new = _flatten(json.loads(config.to_json()))
  changed = [
    f'{key} = {new.get(key)} (there {old.get(key)})'
    for key in sorted({*old, *new} - free)
    if key.split('.')[0] in sections
    and old.get(key) != new.get(key)
    and ((key in old and key in new) or key.startswith('strategies.'))
    and not (key == 'train.duration' and new[key] > old[key])
  ]
  if changed:
    raise ConfigError(
      f'{holder} with another config: {", ".join(changed)}; take another {take} or the same config'
    )


def adopt_config(config: ConfigDict, workdir: pathlib.Path, explicit: Collection[str]):
  """Takes MODEL and RUN from the workdir, or the export, except the keys that are named explicitly.

  So a run with overrides can be sampled without repeating them. Classes in `sampling.labels` may be
  named as the run's data name them. Raises ConfigError.
  """
  model = _exported(config)
  saved = _flatten(model.config_tree()) if model else read_config(workdir)
  if saved is None:
    return
  saved = {key: tuple(v) if isinstance(v, list) else v for key, v in saved.items()}
  strategies = {key: value for key, value in saved.items() if key.startswith('strategies.')}
  if not any(key.startswith('strategies.') for key in explicit):
    config.strategies = ConfigDict(unflatten_dict(strategies, sep='.')['strategies'])
  known = _flatten(json.loads(config.to_json())).keys() - set(explicit) - strategies.keys()
  config.update_from_flattened_dict({key: saved[key] for key in known & saved.keys()})
  if any(isinstance(label, str) for label in config.sampling.labels):
    contents = contents_of(config, workdir)
    resolve_labels(config, contents.classes if contents else ())


def contents_of(config: ConfigDict, workdir: pathlib.Path) -> Contents | None:
  """What the data hold that the model was trained on, if it is known. Raises ConfigError."""
  if not (model := _exported(config)):
    return read_contents(workdir)
  try:
    return Contents.from_json(model.about()['contents'])
  except (KeyError, TypeError):
    return None


def load_ema(
  config: ConfigDict, workdir: pathlib.Path, system: System, mesh: Mesh
) -> tuple[dict, int]:
  """The EMA parameters of `checkpoint.load`, or of the newest step, on every device; and the step.

  `checkpoint.model` takes them from an export. Raises ConfigError if the workdir holds no such
  checkpoint, or one of another model.
  """
  layout = sharding.replicated(mesh)
  if model := _exported(config):
    old, holder = _flatten(model.config_tree()), f'{model.folder} holds a model'
    _require_same(config, old, MODEL, set(), holder, 'checkpoint.model')
    return jax.device_put(_parameters(model, config, system), layout), model.about()['step']
  check_unchanged(config, workdir, MODEL)
  if (workdir / 'checkpoints').is_dir():
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


def _exported(config) -> Exported | None:
  """The export that `checkpoint.model` names."""
  name = config.checkpoint.model
  return exported.open_model(name, 'checkpoint.model') if name else None


def _parameters(model, config, system):
  """The parameters of an export. Raises ConfigError unless they are those of the network."""
  file = model.folder / exported.PARAMETERS
  with blaming(f'{file}, model.name', config.model.name):
    params = naming.from_names(config.model.name, model.tensors())
  saved = flatten_dict(params, sep='/')
  wanted = jax.eval_shape(system.predictor.init, jax.random.key(0))
  wanted = {name: x.shape for name, x in flatten_dict(wanted, sep='/').items()}
  for name in sorted({*saved, *wanted}):
    there = saved[name].shape if name in saved else None
    if there != wanted.get(name):
      raise ConfigError(
        f'config.model describes another network than {file}: '
        f'{name} is {wanted.get(name)}, there {there}'
      )
  return params
