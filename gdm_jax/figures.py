"""Pictures of data, of generation and of training."""

import json
import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

matplotlib.use('Agg')

from matplotlib import pyplot as plt

Picture = UInt8[np.ndarray, 'h w 3']


def to_uint8(x: Float[np.ndarray, '*shape']) -> UInt8[np.ndarray, '*shape']:
  """Data in [-1, 1] as 0..255, rounded, values outside clipped."""
  return np.clip(np.round((np.asarray(x) + 1) * 127.5), 0, 255).astype(np.uint8)


def is_image(shape: Sequence[int]) -> bool:
  """Whether examples of this shape, (*grid, channels), are grey or colour images."""
  return len(shape) == 3 and shape[-1] in (1, 3)


def overview(x: Float[np.ndarray, 'n *grid c'], tile: int = 48) -> Picture:
  """One picture of n examples: a grid of images, a scatter of 2-D points, or curves.

  Images are enlarged by whole factors to about `tile` pixels, so that an 8 x 8 digit is readable.
  """
  if is_image(x.shape[1:]):
    return _image_grid(x, tile)
  figure, axes = plt.subplots(figsize=(4, 4), dpi=100)
  flat = np.asarray(x).reshape(len(x), -1)
  if flat.shape[1] == 2:
    axes.scatter(*flat.T, s=2, alpha=0.5)
    axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect='equal')
  else:
    axes.plot(flat.T, alpha=0.3)
  figure.canvas.draw()
  picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
  plt.close(figure)
  return picture


def save(file: pathlib.Path, picture: UInt8[np.ndarray, 'h w *c']):
  """Writes one picture, PNG by its name."""
  file.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(file)


def animate(file: pathlib.Path, pictures: Sequence[Picture], seconds: float = 4.0):
  """An endless GIF of the pictures, which rests on the last one."""
  frames = [Image.fromarray(p).convert('P', palette=Image.Palette.ADAPTIVE) for p in pictures]
  durations = [int(1000 * seconds / len(frames))] * (len(frames) - 1) + [1500]
  frames[0].save(file, save_all=True, append_images=frames[1:], duration=durations, loop=0)


def plot_loss(file: pathlib.Path, metrics: pathlib.Path):
  """The training loss of a metrics.jsonl against millions of images."""
  rows = [json.loads(line) for line in metrics.read_text().splitlines()]
  if not rows:
    return
  images, loss = (np.array([r[key] for r in rows if 'loss' in r]) for key in ('images', 'loss'))
  figure, axes = plt.subplots(figsize=(6, 3.5), dpi=120, layout='constrained')
  axes.plot(images / 1e6, loss, lw=0.5, alpha=0.4, color='tab:blue')
  window = max(len(loss) // 30, 1)
  smooth = np.convolve(loss, np.ones(window) / window, 'valid')
  axes.plot(images[window - 1 :] / 1e6, smooth, color='tab:blue', label='running mean')
  axes.set(xlabel='million images', ylabel='training loss')
  if loss.min() > 0:
    axes.set_yscale('log')
  axes.legend()
  figure.savefig(file)
  plt.close(figure)


def _image_grid(x, tile):
  n, h, w, _ = x.shape
  columns = int(np.ceil(np.sqrt(n)))
  lines = -(-n // columns)
  factor, gap = max(tile // max(h, w), 1), 2
  tiles = to_uint8(x).repeat(factor, 1).repeat(factor, 2)
  canvas = np.full((lines, columns, h * factor + gap, w * factor + gap, 3), 255, np.uint8)
  for i, image in enumerate(tiles):
    canvas[i // columns, i % columns, gap:, gap:] = image
  picture = canvas.swapaxes(1, 2).reshape(lines * canvas.shape[2], columns * canvas.shape[3], 3)
  return np.pad(picture, ((0, gap), (0, gap), (0, 0)), constant_values=255)
