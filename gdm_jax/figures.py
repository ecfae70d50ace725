"""Pictures of data, of generation and of training."""

import json
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, UnidentifiedImageError

matplotlib.use('Agg')

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from gdm_jax.data.units import from_uint8, to_uint8
from gdm_jax.runtime import distributed

Picture = UInt8[np.ndarray, 'h w 3']


def is_image(shape: Sequence[int]) -> bool:
  """Whether examples of this shape, (*grid, channels), are grey or colour images."""
  return len(shape) == 3 and shape[-1] in (1, 3)


def faded(
  x: Float[np.ndarray, 'h w c'], known: Bool[np.ndarray, 'h w 1']
) -> Float[np.ndarray, 'h w c']:
  """An image with its unknown part in a checked grey."""
  checks = np.indices(x.shape[:2]).sum(0)[..., None] % 2
  return np.where(known, x, 0.1 + 0.2 * checks)


def overview(
  x: Float[np.ndarray, 'n *grid c'], tile: int = 48, columns: int | None = None
) -> Picture:
  """One picture of n examples: a grid of images, a scatter of 2-D points, or curves.

  Images are enlarged by whole factors to about `tile` pixels, so that an 8 x 8 digit is readable;
  columns: how many side by side, by default as many as lines.
  """
  if is_image(x.shape[1:]):
    return _image_grid(x, tile, columns)
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
  """Writes one picture, by process 0, in the format of its suffix."""
  if not distributed.is_primary():
    return
  file.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(file)


def load(file: pathlib.Path, shape: tuple[int, ...] | None = None) -> Float[np.ndarray, 'h w c']:
  """A picture as data in [-1, 1]; `units.to_uint8` gives its bytes back.

  shape: what the picture must have; grey and colour are converted into one another for it, and
  transparency is dropped. Raises ValueError if it has another size, or is no picture.
  """
  try:
    with Image.open(file) as image:
      mode = {1: 'L', 3: 'RGB'}[shape[-1]] if shape else image.mode
      pixels = np.asarray(image.convert(mode))
  except (OSError, UnidentifiedImageError) as error:
    raise ValueError(f'{file} cannot be read as a picture ({error})') from None
  pixels = pixels.reshape(*pixels.shape[:2], -1)
  if shape and pixels.shape != tuple(shape):
    height, width = shape[:2]
    raise ValueError(f'{file} is {pixels.shape[0]} x {pixels.shape[1]}, not {height} x {width}')
  return from_uint8(np.asarray(pixels))


def sheet(
  file: pathlib.Path,
  lines: Sequence[tuple[str, Sequence[tuple[str, Float[np.ndarray, 'h w c']]]]],
  tile: float = 1.1,
):
  """Lines of images, (caption, [(caption, image), ...]), each image `tile` inches wide."""
  columns = max(len(images) for _, images in lines)
  size = tile * columns + 1.2, (tile + 0.25) * len(lines)
  figure, axes = plt.subplots(
    len(lines), columns, figsize=size, dpi=120, layout='constrained', squeeze=False
  )
  for row, (caption, images) in zip(axes, lines, strict=True):
    for axis, (name, image) in zip(row, images, strict=False):
      axis.imshow(np.broadcast_to(to_uint8(image), (*image.shape[:2], 3)))
      axis.set_title(name, fontsize=7)
    row[0].set_ylabel(caption, fontsize=7, rotation=0, ha='right', va='center')
    for i, axis in enumerate(row):
      axis.set(xticks=(), yticks=())
      axis.spines[:].set_visible(False)
      axis.set_visible(i < len(images))
  finish(figure, file)


def animate(file: pathlib.Path, pictures: Sequence[Picture], seconds: float = 4.0):
  """Writes an endless GIF that pauses on the last picture, by process 0."""
  if not distributed.is_primary():
    return
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
  finish(figure, file)


def plot_lines(
  file: pathlib.Path,
  lines: Mapping[str, Sequence[tuple[float, ...]]],
  ticks: Sequence[float] = (),
  **labels: str,
):
  """A line for each name through its points (x, y), or (x, y, error) with error bars.

  ticks: the marks of the x axis, as plain numbers; labels: xlabel, ylabel, xscale, yscale, title.
  """
  figure, axes = plt.subplots(figsize=(6.5, 4), dpi=120, layout='constrained')
  for name, points in lines.items():
    x, y, *error = np.array(points).T
    axes.errorbar(x, y, *error, fmt='o-', ms=4, capsize=3, label=name)
  axes.set(**labels)
  if len(ticks):
    axes.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
    axes.minorticks_off()
  axes.grid(alpha=0.3, which='both')
  axes.legend()
  finish(figure, file)


def plot_bars(
  file: pathlib.Path,
  names: Sequence[str],
  values: Sequence[float],
  errors: Sequence[float],
  **labels: str,
):
  """Bars with error bars; labels: xlabel, ylabel, title."""
  width = float(np.clip(0.5 * len(names), 4, 12))
  figure, axes = plt.subplots(figsize=(width, 3.5), dpi=120, layout='constrained')
  axes.bar(range(len(names)), values, yerr=errors, capsize=3, color='tab:blue')
  ticks = range(0, len(names), -(-len(names) // 24))
  axes.set_xticks(ticks, [names[i] for i in ticks])
  axes.axhline(0, color='black', lw=0.8)
  axes.set(**labels)
  finish(figure, file)


def finish(figure: Figure, file: pathlib.Path, **options):
  """Writes a figure, by process 0, and closes it; options: of savefig."""
  if distributed.is_primary():
    figure.savefig(file, **options)
  plt.close(figure)


def _image_grid(x, tile, columns):
  n, h, w, _ = x.shape
  columns = columns or int(np.ceil(np.sqrt(n)))
  lines = -(-n // columns)
  factor, gap = max(tile // max(h, w), 1), 2
  tiles = to_uint8(x).repeat(factor, 1).repeat(factor, 2)
  canvas = np.full((lines, columns, h * factor + gap, w * factor + gap, 3), 255, np.uint8)
  for i, image in enumerate(tiles):
    canvas[i // columns, i % columns, gap:, gap:] = image
  picture = canvas.swapaxes(1, 2).reshape(lines * canvas.shape[2], columns * canvas.shape[3], 3)
  return np.pad(picture, ((0, gap), (0, gap), (0, 0)), constant_values=255)
