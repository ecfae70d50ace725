"""Lines for the user."""

import sys

import tqdm

from gdm_jax.runtime import distributed


def log(message: str):
  """Prints a line to stderr, by process 0, without tearing a progress bar."""
  if distributed.is_primary():
    tqdm.tqdm.write(message, file=sys.stderr)
