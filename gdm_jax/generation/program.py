"""The sampler as one program that needs jax alone: parameters, table and latents are arguments.

Another order, another number of steps, completion and encoding are other tables, so one program
serves all of them (`sampling`).
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Float

from gdm_jax import sampling
from gdm_jax.build import System
from gdm_jax.models import naming
from gdm_jax.solvers import Solver

PLATFORMS = ('cpu', 'cuda', 'tpu')


def export_sampler(
  system: System,
  network: str,
  shape: tuple[int, ...],
  solver: Solver,
  guidance: float | Float[np.ndarray, ' k'] = 1.0,
  dtype: str = 'float32',
) -> bytes:
  """`sampler(tensors, table, z) -> x`, serialised by `jax.export` for `PLATFORMS`.

  tensors: the parameters by name (`models.naming`), in `dtype`. table: float32 [rows, k], any
  number of rows; upside down it encodes. z: float32 [batch, *shape], any batch. For a model of
  labels a fourth argument, int32 [batch], -1 for none.

  system: with direct convolutions, since those of a CPU are no part of a program for others. The
  solver must take fixed steps.
  """
  process, predictor = system.process, system.predictor
  labelled = predictor.network.num_classes > 0

  def sampler(tensors, table, z, labels=None):
    params = naming.from_names(network, {n: v.astype(jnp.float32) for n, v in tensors.items()})
    predict = predictor.bind(params, labels, guidance)
    return sampling.sample(predict, process, table, z, solver)

  abstract = jax.eval_shape(predictor.init, jax.random.key(0))
  tensors = jax.eval_shape(lambda params: naming.to_names(network, params), abstract)
  tensors = {n: jax.ShapeDtypeStruct(v.shape, jnp.dtype(dtype)) for n, v in tensors.items()}
  batch, rows = export.symbolic_shape('batch, rows', constraints=['batch >= 1', 'rows >= 2'])
  table = jax.ShapeDtypeStruct((rows, process.grouping.num_groups), jnp.float32)
  z = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
  labels = [jax.ShapeDtypeStruct((batch,), jnp.int32)] * labelled
  with _file_names_alone():
    exported = export.export(jax.jit(sampler), platforms=PLATFORMS)(tensors, table, z, *labels)
  return bytes(exported.serialize())


@contextlib.contextmanager
def _file_names_alone():
  """Source locations of programs have no folders, which are those of this machine."""
  key = 'jax_hlo_source_file_canonicalization_regex'
  before = jax.config.values[key]
  jax.config.update(key, '.*/')
  try:
    yield
  finally:
    jax.config.update(key, before)
