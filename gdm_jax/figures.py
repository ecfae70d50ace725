"""Pictures of data, of generation and of training."""

import pathlib
import warnings
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, UnidentifiedImageError

matplotlib.use('Agg')

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from gdm_jax.data.units import from_uint8, to_uint8
from gdm_jax.runtime import distributed, files

CAPTION = 32  # characters of a line beside or above a tile
INCHES = 0.1  # that one of them takes at most
NAMED_GROUPS = 9  # whose losses a legend names
CURVE, CURVE_HEIGHT = (
  2.5,
  48,
)  # values that the picture of a signal covers, and its height in pixels

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
  """One picture of n examples: images, curves or volumes in a grid, or a scatter of 2-D points.

  A volume is its slices side by side. Images are enlarged by whole factors to about `tile` pixels,
  so that an 8 x 8 digit is readable; columns: how many side by side, by default as many as lines.
  """
  if is_image(x.shape[1:]):
    return _image_grid(x, tile, columns)
  if x.ndim == 3 and x.shape[1] > 2:
    return _image_grid(_curves(x), 2 * CURVE_HEIGHT, columns)
  if x.ndim == 5 and x.shape[-1] in (1, 3):
    return _image_grid(_slices(x), 3 * tile, columns)
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
  to_pil(picture).save(file)


def to_pil(picture: UInt8[np.ndarray, 'h w *c']) -> Image.Image:
  """A grey or colour picture for Pillow, which has no axis for a single channel."""
  return Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)


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
  longest = max(len(line) for caption, _ in lines for line in _shortened(caption).split('\n'))
  size = tile * columns + max(1.2, INCHES * longest), (tile + 0.25) * len(lines)
  figure, axes = plt.subplots(
    len(lines), columns, figsize=size, dpi=120, layout='constrained', squeeze=False
  )
  for row, (caption, images) in zip(axes, lines, strict=True):
    for axis, (name, image) in zip(row, images, strict=False):
      axis.imshow(np.broadcast_to(to_uint8(image), (*image.shape[:2], 3)))
      axis.set_title(_shortened(name), fontsize=7, parse_math=False)
    row[0].set_ylabel(caption, fontsize=7, rotation=0, ha='right', va='center', parse_math=False)
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
  """The training loss of a metrics.jsonl, and the held-out loss of each group if it has them."""
  rows = files.read_rows(metrics)
  points = [(row.get('images'), row.get('loss')) for row in rows]
  points = [pair for pair in points if all(isinstance(value, int | float) for value in pair)]
  if not points:
    return
  images, loss = np.array(points).T
  unseen = [row for row in rows if 'validation_loss' in row]
  figure, axes = plt.subplots(
    1, 1 + bool(unseen), figsize=(10 if unseen else 6, 3.5), dpi=120, layout='constrained'
  )
  if unseen:
    axes, right = axes
    _plot_unseen(right, unseen)
  axes.plot(images / 1e6, loss, lw=0.5, alpha=0.4, color='tab:blue')
  window = max(len(loss) // 30, 1)
  smooth = np.convolve(loss, np.ones(window) / window, 'valid')
  axes.plot(images[window - 1 :] / 1e6, smooth, color='tab:blue', label='running mean')
  axes.set(xlabel='million images', ylabel='training loss')
  if loss.min() > 0:
    axes.set_yscale('log')
  axes.legend()
  finish(figure, file)


def _plot_unseen(axes, rows):
  """The mean of the held-out losses, and those of groups: by name if there are few."""
  images = np.array([row['images'] for row in rows]) / 1e6
  lines = {}
  for strategy, groups in rows[0]['validation_loss_of_groups'].items():
    for i in range(len(groups)):
      values = [row['validation_loss_of_groups'][strategy][i] for row in rows]
      lines[f'{strategy}, group {i}'] = values
  named = len(lines) <= NAMED_GROUPS
  for name, values in lines.items():
    axes.plot(images, values, 'o-', ms=2, lw=1, alpha=0.6, label=name if named else None)
  axes.plot(images, [row['validation_loss'] for row in rows], 'k.-', lw=1.5, label='mean')
  axes.set(xlabel='million images', ylabel='held-out loss while a group moves')
  axes.legend(fontsize='small')


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


def plot_points(
  file: pathlib.Path,
  names: Sequence[str],
  lines: Mapping[str, Sequence[tuple[float, float, float]]],
  **labels: str,
):
  """Points (number of a name, y, error) above the names, a colour for each line."""
  figure, axes = plt.subplots(figsize=(7.5, 4), dpi=120, layout='constrained')
  for i, (name, points) in enumerate(lines.items()):
    x, y, error = np.array(points).T
    aside = 0.1 * (i - (len(lines) - 1) / 2)
    axes.errorbar(x + aside, y, error, fmt='o', ms=5, capsize=3, label=name)
  axes.set_xticks(range(len(names)), names)
  axes.set(**labels)
  axes.grid(alpha=0.3, axis='y')
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
    with warnings.catch_warnings():
      # Names of files may be of any script; what the font lacks is drawn as a box.
      warnings.filterwarnings('ignore', 'Glyph .* missing from font')
      figure.savefig(file, **options)
  plt.close(figure)


def _shortened(text):
  """Text whose lines fit beside a tile: of longer ones the beginning and the end."""
  half = CAPTION // 2
  return '\n'.join(
    line if len(line) <= CAPTION else f'{line[:half]}...{line[-half:]}' for line in text.split('\n')
  )


def _curves(x):
  """Signals [n, length, c] as images of their curves, black on grey, between -CURVE and CURVE."""
  levels = (CURVE - np.clip(x, -CURVE, CURVE)) / (2 * CURVE) * (CURVE_HEIGHT - 1)
  nexts = np.concatenate([levels[:, 1:], levels[:, -1:]], 1)
  low, high = np.floor(np.minimum(levels, nexts)), np.ceil(np.maximum(levels, nexts))
  height = np.arange(CURVE_HEIGHT)[:, None, None]
  drawn = (low[:, None] <= height) & (height <= high[:, None])
  return np.where(drawn.any(-1, keepdims=True), -1.0, 0.8)  # grey, so that tiles are told apart


def _slices(x):
  """Volumes [n, depth, h, w, c] as images of their slices side by side, parted by grey lines."""
  n, depth, h, w, c = x.shape
  apart = np.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1), (0, 0)))
  return apart.transpose(0, 2, 1, 3, 4).reshape(n, h, depth * (w + 1), c)[:, :, :-1]


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
