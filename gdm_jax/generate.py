"""Generation over all devices: from seeds to data, in pieces short enough to show progress."""

import functools
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from gdm_jax import sampling, sharding
from gdm_jax.build import System

PIECE = 16  # steps of a table per dispatched program: few enough to show progress and to stop


class Generator:
  """A model ready to generate: compiled once, then called with any seeds, tables and parameters.

  Image i depends on seed i alone, not on the batch or the number of devices (up to rounding).
  """

  def __init__(self, system: System, shape: tuple[int, ...], solver: str, mesh: Mesh):
    split, everywhere = sharding.split(mesh), sharding.everywhere(mesh)
    self._devices = mesh.size
    self._latents = jax.jit(functools.partial(sampling.latents, shape=shape), out_shardings=split)

    def walk(params, rows, x):
      predict = functools.partial(system.predict, params)
      return sampling.sample(predict, system.process, rows, x, solver)

    self._walk = jax.jit(walk, in_shardings=(everywhere, everywhere, split), out_shardings=split)
    self._gather = jax.jit(lambda x: x, out_shardings=everywhere)

  def states(
    self,
    params: dict,
    table: Float[Array, 'rows k'],
    seeds: Int[np.ndarray, ' batch'],
    piece: int = PIECE,
  ) -> Iterator[Float[np.ndarray, 'batch *grid c']]:
    """The state of every image: its latent, then after each piece; the last one is the data."""
    padded = np.resize(seeds, -(-len(seeds) // self._devices) * self._devices)
    x = self._latents(padded.astype(np.uint32))
    yield np.asarray(self._gather(x))[: len(seeds)]
    for rows in pieces(table, piece):
      x = self._walk(params, rows, x)
      yield np.asarray(self._gather(x))[: len(seeds)]

  def images(self, params: dict, table: Float[Array, 'rows k'], seeds) -> np.ndarray:
    """Data [batch, *grid, channels] of the seeds."""
    for x in self.states(params, table, seeds):
      final = x
    return final


def pieces(table: Float[Array, 'rows k'], most: int = PIECE) -> list[Float[Array, 'piece k']]:
  """The table cut into equal runs of at most that many steps, neighbours sharing a row."""
  table = np.asarray(table)
  steps = len(table) - 1
  size = max(n for n in range(1, most + 1) if steps % n == 0)
  return [table[i : i + size + 1] for i in range(0, steps, size)]
