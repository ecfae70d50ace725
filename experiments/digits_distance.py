"""Frechet distance of generated digits to scikit-learn's 1,797, on raw pixels in [-1, 1].

  python -m gdm_jax.main --config=configs/digits.py --mode=sample \\
    --config.sampling.seeds=0-1999
  python -m experiments.digits_distance runs/digits/samples

A distance of means and covariances of 64 pixels: it says whether training worked, and is no FID.
"""

import pathlib
import sys

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from sklearn.datasets import load_digits


def frechet_distance(a: Float[np.ndarray, 'n d'], b: Float[np.ndarray, 'm d']) -> float:
  """|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), in the square of the data's unit."""
  mean_a, mean_b = a.mean(0), b.mean(0)
  cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
  values, vectors = np.linalg.eigh(cov_a)
  root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
  shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
  return float(np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * shared)


def pixel_distance(images: UInt8[np.ndarray, 'n 8 8 *c']) -> float:
  """FD (pixels): the distance of images to the digits."""
  pixels = images.reshape(len(images), -1) / 127.5 - 1
  return frechet_distance(pixels, load_digits().data / 8 - 1)


def run(folder: pathlib.Path):
  """Prints the distance of the images of --mode=sample in a folder."""
  files = sorted(f for f in folder.glob('*.png') if f.stem.isdigit())
  if len(files) < 65:
    sys.exit(f'error: {folder} holds {len(files)} images; 65 at least, 2,000 for a stable figure')
  distance = pixel_distance(np.stack([np.asarray(Image.open(f)) for f in files]))
  print(f'{len(files)} images: FD (pixels) {distance:.3f}')


if __name__ == '__main__':
  if len(sys.argv) != 2 or sys.argv[1] in ('-h', '--help'):
    print(__doc__.strip())
    sys.exit(0 if len(sys.argv) == 2 else 2)
  run(pathlib.Path(sys.argv[1]))
