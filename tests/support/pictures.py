"""Pictures for tests."""

import numpy as np
from PIL import Image


def write(file, pixels, **options):
  file.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.asarray(pixels, np.uint8)).save(file, **options)
  return file


def flat(value, shape=(8, 8)):
  return np.full(shape, value, np.uint8)


def truncate(file):
  """Leaves half of a picture of noise, so that its header is whole."""
  write(file, np.random.default_rng(0).integers(0, 256, (64, 64)))
  file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
