"""EDM's published DDPM++ networks, converted once to a folder that `train.start` takes.

  python -m gdm_jax.models.from_edm FILE.pkl FOLDER

  FILE.pkl  a network of EDM's (Karras et al. 2022), such as network-snapshot-200000.pkl
  FOLDER    gets model.safetensors, under EDM's names, and SHA256SUMS

Nothing in FILE.pkl is executed, although such files hold source code; PyTorch is not needed.
"""

import pathlib
import sys
from collections.abc import Sequence

from gdm_jax.models.ddpmpp import params_from_reference
from gdm_jax.runtime import exported, unpickle

OPTIONS = {
  'model_channels': 'model.ddpmpp.channels',
  'channel_mult': 'model.ddpmpp.multipliers',
  'num_blocks': 'model.ddpmpp.blocks',
  'attn_resolutions': 'model.ddpmpp.attention',
}
"""EDM's options that say which network it is, and the keys of the config."""


def main(argv: Sequence[str]) -> int:
  """Runs the command and returns its exit code: 0 done, 2 bad input."""
  if {'--help', '-h'} & set(argv[1:]) or len(argv) == 1:
    print(__doc__)
    return 0
  try:
    if len(argv) != 3:
      raise ValueError(f'{" ".join(argv[1:])!r} is not FILE.pkl and FOLDER')
    source, folder = map(pathlib.Path, argv[1:])
    options = convert(source, folder)
  except (OSError, ValueError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  keys = [
    f'--config.{key}={_joined(options[name])}' for name, key in OPTIONS.items() if name in options
  ]
  print(f'begin with it by --config.train.start={folder} {" ".join(keys)}'.strip())
  return 0


def convert(source: pathlib.Path, folder: pathlib.Path) -> dict:
  """Writes the folder; returns what EDM's network was made with.

  Raises ValueError if `source` is no pickle of a DDPM++ network, and ConfigError for a folder that
  cannot be written or holds something else.
  """
  tensors, options = unpickle.read_edm(source.read_bytes())
  tensors = {
    name.removeprefix('model.'): value
    for name, value in tensors.items()
    if not name.endswith('.resample_filter')
  }
  params_from_reference(tensors)  # raises ValueError for another network's names
  exported.prepare(folder, str(folder))
  with exported.replacing(folder) as new:
    exported.write_tensors(new / exported.PARAMETERS, tensors, 'float32', network='ddpmpp')
  return options


def _joined(value):
  return ','.join(map(str, value)) if isinstance(value, list | tuple) else str(value)


if __name__ == '__main__':
  sys.exit(main(sys.argv))
