"""Generation with a cache over all devices, segment by segment of a plan (`caching`)."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from gdm_jax import caching
from gdm_jax.build import System
from gdm_jax.caching import Plan
from gdm_jax.process import Data
from gdm_jax.runtime import sharding
from gdm_jax.solvers import Solver, State
from gdm_jax.typing import AnyArray

Labels = Int[AnyArray, ' batch']


def can_cache(system: System, solver: Solver) -> bool:
  """Whether the network keeps known groups as context, and the solver leaves them alone.

  With one group there is nothing to keep, unless the network computes its context once a group. A
  solver that `caching` refuses needs whole examples.
  """
  predictor = system.predictor
  keeps = system.process.grouping.num_groups > 1 or not predictor.has_conditionals
  return predictor.is_groupwise and keeps and not solver.first_evaluations


class CachedWalks:
  """Walks of batches that are sharded over the devices; states are of data, not of coefficients."""

  def __init__(
    self, system: System, solver: Solver, mesh: Mesh, guidance: float | Float[np.ndarray, ' k']
  ):
    batch_sharded, replicated = sharding.batch_sharded(mesh), sharding.replicated(mesh)
    process, predictor = system.process, system.predictor
    self._groups = predictor.network.tokens.groups
    to_data, to_noise = caching.to_data(process, solver), caching.to_noise(process, solver)

    def start(params, plan, x, labels):
      model, y = predictor.bind_cached(params, labels, guidance), process.basis.analyze(x)
      state = to_data.start(plan.segments[0].rows[0], y)
      return state, caching.empty(model, plan, y)

    def start_back(params, plan, x, labels):
      model, y = predictor.bind_cached(params, labels, guidance), process.basis.analyze(x)
      state = to_noise.start(plan.segments[-1].rows[-1], y)
      return state, caching.full(model, plan, y)

    def forward(params, plan, segment, state, cache, labels):
      model = predictor.bind_cached(params, labels, guidance)
      return caching.forward(model, plan, segment, to_data, state, cache)

    def backward(params, plan, segment, state, cache, labels):
      model = predictor.bind_cached(params, labels, guidance)
      return caching.backward(model, plan, segment, to_noise, state, cache)

    def jitted(function, whole, batches):
      shardings = (replicated,) * whole + (batch_sharded,) * batches
      return jax.jit(
        function,
        in_shardings=shardings,
        out_shardings=batch_sharded,
        compiler_options=sharding.compiler_options(mesh),
      )

    self._start, self._start_back = jitted(start, 2, 2), jitted(start_back, 2, 2)
    self._forward, self._backward = jitted(forward, 3, 3), jitted(backward, 3, 3)
    self._synthesize = jax.jit(process.basis.synthesize, out_shardings=batch_sharded)

  def plan(self, table: Float[AnyArray, 'rows k'], chunk: int) -> Plan:
    """The plan of a table, in segments of at most `chunk` steps. Raises ValueError."""
    return caching.plan(table, self._groups, chunk)

  def forward(self, params: dict, plan: Plan, z: Data, labels: Labels) -> Iterator[State]:
    """The state after each segment towards data."""
    if not plan.segments:
      return
    state, cache = self._start(params, plan, z, labels)
    tokens = dataclasses.replace(plan, segments=())  # all that a segment needs of its plan
    for segment in plan.segments:
      state, cache = self._forward(params, tokens, segment, state, cache, labels)
      yield self._of_data(state)

  def backward(self, params: dict, plan: Plan, x: Data, labels: Labels) -> Iterator[State]:
    """The state after each segment towards noise."""
    if not plan.segments:
      return
    state, cache = self._start_back(params, plan, x, labels)
    tokens = dataclasses.replace(plan, segments=())
    for segment in reversed(plan.segments):
      state = self._backward(params, tokens, segment, state, cache, labels)
      yield self._of_data(state)

  def _of_data(self, state):
    return State(self._synthesize(state.y))
