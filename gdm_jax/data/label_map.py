"""Label maps of your own: which group every position, or every channel of it, belongs to."""

import pathlib

import numpy as np
from jaxtyping import Shaped
from PIL import Image, UnidentifiedImageError

from gdm_jax.runtime.files import DamagedFile, read_arrays


def read(file: str) -> Shaped[np.ndarray, '...']:
  """The numbers of groups in a picture or an array.

  A grey or palette picture holds one number a position, as they are stored; a colour picture one
  for each of red, green and blue. An npz file holds the array `labels`, [*grid] or [*grid,
  channels], an npy file that array alone. Raises ValueError if the file cannot be read.
  """
  path = pathlib.Path(file).expanduser()
  try:
    if path.suffix in ('.npz', '.npy'):
      arrays = read_arrays(path)
      if not {'labels', ''} & arrays.keys():
        raise ValueError(f"{path} has no array 'labels', only {', '.join(arrays)}")
      return arrays.get('labels', arrays.get(''))
    with Image.open(path) as image:
      if image.mode not in ('L', 'P', 'I;16', 'RGB', '1'):
        raise ValueError(f'{path} is a picture of mode {image.mode}; must be grey, palette or RGB')
      return np.asarray(image).astype(np.int32)
  except UnidentifiedImageError:
    raise ValueError(f'{path} is no picture and no npz file') from None
  except (OSError, SyntaxError, DamagedFile) as error:
    raise ValueError(f'cannot read {path} ({error})') from None
