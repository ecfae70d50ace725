"""A trained model as a folder: how it is found, checked and read. Nothing in it is executed.

| file                | holds                                                              |
|---------------------|--------------------------------------------------------------------|
| `model.safetensors` | the parameters by name, in the dtype that they are stored in       |
| `config.json`       | the resolved config, and `about`: what the data hold, the step     |
| `labels_I.npz`      | the groups of the I-th strategy, from 0, if read from a file       |
| `sampler.stablehlo` | the sampler as a program that needs jax alone (optional)           |
| `grid.png`          | samples (optional)                                                 |
| `SHA256SUMS`        | of all these, in the format of `sha256sum`                         |
| `README.md`         | the model card; not in the sums, so that its owner may complete it |
"""

import contextlib
import hashlib
import json
import pathlib
import re
import runpy
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from ml_collections import ConfigDict

from gdm_jax.runtime import files, paths
from gdm_jax.runtime.errors import ConfigError

PARAMETERS, CONFIG, SUMS = 'model.safetensors', 'config.json', 'SHA256SUMS'
PROGRAM, SHEET, CARD = 'sampler.stablehlo', 'grid.png', 'README.md'
SUMMED = (PARAMETERS, CONFIG, 'labels_*.npz', PROGRAM, SHEET)
UNFINISHED = '.unfinished-'  # folders in which exports are written
ABOUT = 'about'  # of config.json: what is no part of the config

SECTIONS = ('data', 'basis', 'strategies', 'model', 'train', 'machine', 'checkpoint', 'sampling')
"""What a config has at least."""

HUB = 'hf:'
MODELS = pathlib.Path(__file__).parents[1] / 'models_data'
"""The models that come with the package, a folder each."""

DEFAULTS = pathlib.Path(__file__).parents[2] / 'configs' / 'default.py'
"""Has the values of keys that are newer than an export, where the repository is at hand."""

NEWER = {
  'machine': {'all_reduce': 'auto'},
  'model': {
    'context_unet': {
      **{'channels': 128, 'multipliers': (2, 2, 2), 'blocks': 4, 'attention': (16,)},
      **{'features': 64, 'denoiser_channels': 64, 'denoiser_multipliers': (1, 2)},
      **{'denoiser_blocks': 1, 'dropout': 0.13},
    }
  },
  'sampling': {'latents': '', 'ranks': '', 'rho': 1.0},
}
"""Keys that earlier exports and folders of samples lack, and what they stand for there."""

DTYPES = {
  'F64': np.float64,
  'F32': np.float32,
  'F16': np.float16,
  'BF16': jnp.bfloat16,
}
"""Of safetensors, those that parameters may have."""


class Exported(NamedTuple):
  """A folder whose files are intact."""

  name: str
  folder: pathlib.Path

  def config_tree(self) -> dict:
    """The content of config.json, with the files that it names inside the folder.

    Raises ConfigError if there is none: then these are parameters alone (`models.from_edm`).
    """
    file = self.folder / CONFIG
    if not file.is_file():
      raise ConfigError(f'{self.folder} holds parameters, but no {CONFIG}: for train.start alone')
    try:
      tree = json.loads(file.read_text())
      for strategy in tree['strategies'].values():
        kind, _, labels = strategy['grouping'].partition(':')
        if kind == 'file':
          strategy['grouping'] = f'file:{self.folder / pathlib.Path(labels).name}'
      return tree
    except (ValueError, KeyError, TypeError, AttributeError):
      raise ConfigError(f'{file} is no config of gdm_jax') from None

  def config(self) -> ConfigDict:
    """The config, over the defaults; it names this folder. Raises ConfigError."""
    tree = self.config_tree()
    tree.pop(ABOUT, None)
    base = runpy.run_path(str(DEFAULTS))['get_config']().to_dict() if DEFAULTS.is_file() else NEWER
    config = ConfigDict(_merged(base, _tuples(tree)))
    for name in SECTIONS:
      if not isinstance(config.get(name), ConfigDict):
        raise ConfigError(f'{self.folder / CONFIG} is no config of gdm_jax: {name} is missing')
    # No place on this machine is the export's to choose, least of all one with compiled programs.
    config.machine.update(compilation_cache='auto', data_dir='')
    config.checkpoint.update(model=str(self.folder.absolute()), load=0)
    for name, section in config.items():
      folder = section.get('folder') if isinstance(section, ConfigDict) else None
      if folder is not None and not re.fullmatch(r'[\w.-]*\w', str(folder)):
        section.folder = name
    return config

  def about(self) -> dict:
    """What the export says besides its config. Raises ConfigError."""
    about = self.config_tree().get(ABOUT)
    if not (isinstance(about, dict) and isinstance(about.get('step'), int)):
      raise ConfigError(f'{self.folder / CONFIG} is no config of gdm_jax: about.step is missing')
    return about

  def tensors(self) -> dict[str, np.ndarray]:
    """The parameters by name, as float32. Raises ConfigError."""
    file = self.folder / PARAMETERS
    try:
      return {
        name: np.frombuffer(part['data'], DTYPES[part['dtype']])
        .reshape(part['shape'])
        .astype(np.float32)
        for name, part in safetensors.deserialize(file.read_bytes())
      }
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
      raise ConfigError(f'{file} holds no parameters: {error}'.splitlines()[0]) from None

  def digest(self) -> str:
    """The SHA-256 of the parameters' file."""
    return _digest(self.folder / PARAMETERS)


def names() -> list[str]:
  """The models that come with the package."""
  return sorted(file.parent.name for file in MODELS.glob(f'*/{SUMS}'))


def open_model(model: str, key: str = '--model') -> Exported:
  """The model of a name, of a folder, or of 'hf:user/model' or 'hf:user/model@revision'.

  key: what errors are about. Raises ConfigError for a model that does not exist, a folder that is
  no export, and for every file that is missing or was changed.
  """
  if model.startswith(HUB):
    folder = _download(key, model)
  elif model in names():
    folder = MODELS / model
  else:
    folder = paths.expand(key, model)
    if not folder.is_dir():
      known = ', '.join(names()) or 'none'
      raise ConfigError(f'{key}={model}: no such folder, and no model by name; there are: {known}')
  if damage := _damage(folder):
    raise ConfigError(f'{key}={model}: {damage}')
  return Exported(model, folder)


def is_export(folder: pathlib.Path) -> bool:
  """Whether a folder is an export, intact or not."""
  return (folder / SUMS).is_file()


def short_name(model: str) -> str:
  """The last part of a model's name, such as that of its folder."""
  return pathlib.PurePath(model.removeprefix(HUB).partition('@')[0]).name or 'model'


def write_tensors(file: pathlib.Path, tensors: Mapping[str, np.ndarray], dtype: str, **about: str):
  """Writes parameters by name in that dtype. Raises ConfigError for a value that it cannot hold."""
  kind, stored = jnp.dtype(dtype), {}
  for name, value in tensors.items():
    with np.errstate(over='ignore'):
      stored[name] = np.ascontiguousarray(np.asarray(value).astype(kind))
    if not np.isfinite(stored[name].astype(np.float32)).all():
      raise ConfigError(f'{name} has values that {dtype} cannot hold')
  file.write_bytes(safetensors.numpy.save(stored, metadata=about))


def prepare(folder: pathlib.Path, name: str):
  """Creates a folder for an export. Raises ConfigError, about `name`, if it holds other things."""
  if folder.is_dir() and not is_export(folder):
    others = [file for file in folder.iterdir() if not file.name.startswith(UNFINISHED)]
    # Parameters without sums are of an export that was stopped in the end.
    if others and not (folder / PARAMETERS).is_file():
      raise ConfigError(f'{name} holds something else; take another')
  files.make_folder(folder, name)


@contextlib.contextmanager
def replacing(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """A place for the files of an export, which in the end replace those of `folder`, with sums.

  Until then an export that is there stays as it is, and no other file is ever touched.
  """
  for left in folder.glob(f'{UNFINISHED}*'):  # by a program that was killed
    shutil.rmtree(left, ignore_errors=True)
  with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder) as place:
    new = pathlib.Path(place)
    yield new
    write_sums(new)
    (folder / SUMS).unlink(missing_ok=True)  # while files are replaced, it is no export
    for pattern in (*SUMMED, CARD):
      for file in folder.glob(pattern):
        if not (new / file.name).exists():
          file.unlink()
      for file in new.glob(pattern):
        file.replace(folder / file.name)
    (new / SUMS).replace(folder / SUMS)


def write_sums(folder: pathlib.Path):
  """Writes SHA256SUMS of the folder's files, which makes it an export."""
  files = sorted(file for pattern in SUMMED for file in folder.glob(pattern))
  (folder / SUMS).write_text(''.join(f'{_digest(file)}  {file.name}\n' for file in files))


def _damage(folder):
  """What is wrong with a folder, as a phrase; '' if nothing is."""
  if not is_export(folder):
    return f'{folder} has no {SUMS}, so it is no export; --mode=export makes one'
  sums = {}
  for line in (folder / SUMS).read_bytes().decode(errors='replace').splitlines(keepends=True):
    # Exactly as they are written, so that no change of a byte goes unnoticed.
    if not (match := re.fullmatch(r'([0-9a-f]{64})  ([\w.-]+)\n', line, re.ASCII)):
      return f'{folder / SUMS} is damaged'
    sums[match[2]] = match[1]
  if PARAMETERS not in sums:
    return f'{folder / SUMS} does not name {PARAMETERS}'
  for name, expected in sums.items():
    if not (folder / name).is_file():
      return f'{folder / name} is missing'
    if _digest(folder / name) != expected:
      return f'{folder / name} was changed: its SHA-256 is not that of {SUMS}'
  for file in (file for pattern in SUMMED for file in folder.glob(pattern)):
    if file.name not in sums:
      return f'{folder / SUMS} does not name {file.name}'
  return ''


def _digest(file):
  with file.open('rb') as f:
    return hashlib.file_digest(f, 'sha256').hexdigest()


def _download(key, model):
  """The folder of a model of the hub, which keeps it on this machine. Raises ConfigError."""
  try:
    import huggingface_hub
  except ImportError:
    raise ConfigError(f'{key}={model} needs huggingface_hub: pip install huggingface_hub') from None
  name, _, revision = model.removeprefix(HUB).partition('@')
  try:
    return pathlib.Path(huggingface_hub.snapshot_download(name, revision=revision or None))
  except Exception as error:  # of a wrong name or a lost connection it raises many
    raise ConfigError(' '.join(f'{key}={model}: {error}'.split())) from None


def _merged(base, tree):
  """A tree over another; strategies are replaced, since their names are their own."""
  both = {
    key: _merged(base[key], value)
    if isinstance(value, dict) and isinstance(base.get(key), dict) and key != 'strategies'
    else value
    for key, value in tree.items()
  }
  return {**base, **both}


def _tuples(tree):
  """JSON's lists as the tuples that a config has."""
  if isinstance(tree, dict):
    return {key: _tuples(value) for key, value in tree.items()}
  return tuple(map(_tuples, tree)) if isinstance(tree, list) else tree
