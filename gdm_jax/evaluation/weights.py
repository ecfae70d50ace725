"""The published weights of the evaluation's networks, converted once to a file that needs no torch.

  python -m gdm_jax.evaluation.weights NETWORK FILE.pth OUT.npz

  NETWORK   inception (FID) or vgg19 (perceptual variance)
  FILE.pth  the published file, downloaded from the address below; its SHA-256 is checked first
  OUT.npz   is written atomically; --config.evaluation.weights=OUT.npz reads it

Only this conversion needs PyTorch, so it may run on any machine and OUT.npz be carried over.
"""

import dataclasses
import hashlib
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from gdm_jax.evaluation import archive, inception, vgg
from gdm_jax.runtime.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Published:
  """A published file of weights."""

  url: str
  sha256: str


PUBLISHED = {
  'inception': Published(
    'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
    'pt_inception-2015-12-05-6726825d.pth',
    '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2',
  ),
  'vgg19': Published(
    'https://download.pytorch.org/models/vgg19-dcbb9e9d.pth',
    'dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44',
  ),
}
NETWORKS = {'inception': inception, 'vgg19': vgg}


def main(argv: Sequence[str]) -> int:
  """Runs the command and returns its exit code: 0 done, 2 bad input."""
  if {'--help', '-h'} & set(argv[1:]) or len(argv) == 1:
    print(__doc__)
    for name, published in PUBLISHED.items():
      print(f'  {name:9} {published.url}')
    return 0
  try:
    if len(argv) != 4 or argv[1] not in NETWORKS:
      raise ValueError(f'{" ".join(argv[1:])!r} is not {" or ".join(NETWORKS)} FILE.pth OUT.npz')
    convert(argv[1], pathlib.Path(argv[2]), pathlib.Path(argv[3]))
  except (OSError, ValueError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  return 0


def convert(name: str, source: pathlib.Path, target: pathlib.Path):
  """Writes the network's parameters, under the reference's names, and `sha256` of `source`.

  Raises:
    ValueError: `source` is not the published file, or PyTorch is not installed.
  """
  with source.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  published = PUBLISHED[name]
  if digest != published.sha256:
    raise ValueError(
      f'{source} has SHA-256 {digest}; {published.url} has {published.sha256}: download it again'
    )
  try:
    import torch
  except ModuleNotFoundError:
    raise ValueError(
      'the conversion needs PyTorch: pip install torch, here or on any machine, and carry '
      f'{target.name} over'
    ) from None
  tensors = torch.load(source, weights_only=True, map_location='cpu')
  shapes = NETWORKS[name].reference_shapes()
  # Detached, because old files hold trainable parameters rather than plain tensors.
  weights = {n: np.float32(t.detach().numpy()) for n, t in tensors.items() if n in shapes}
  archive.write(target, sha256=digest, **weights)


def load(name: str, file: str) -> dict:
  """Parameters of the network `name` from a converted file; nothing in it is ever unpickled.

  Raises:
    ConfigError: names `evaluation.weights`, what is wrong with its value, and how to get it right.
  """
  published = PUBLISHED[name]

  def error(problem):
    return ConfigError(
      f'evaluation.weights = {file!r} {problem}; download {published.url} and run '
      f'python -m gdm_jax.evaluation.weights {name} {published.url.split("/")[-1]} {name}.npz'
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
