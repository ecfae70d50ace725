"""The groupwise process: a grouping, a basis and a path (Eq. 6, 11)."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from gdm_jax import path as paths
from gdm_jax import schedule as schedules
from gdm_jax.basis import Basis
from gdm_jax.grouping import Grouping
from gdm_jax.schedule import Schedule
from gdm_jax.typing import AnyArray, Scalar

Data = Float[AnyArray, 'batch *grid c']
Levels = Float[AnyArray, '*batch k']
Groups = Shaped[AnyArray, ' k']


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Process:
  """What happens to data at given signal levels; knows no networks.

  Raises ValueError if grouping and basis have different grids.
  """

  grouping: Grouping
  basis: Basis
  path: paths.Path = dataclasses.field(default=paths.linear, metadata={'static': True})

  def __post_init__(self):
    # Transformations rebuild the pytree with placeholders that have no shape.
    if not hasattr(self.grouping.labels, 'shape') or not hasattr(self.basis.ranks, 'shape'):
      return
    grids = self.grouping.shape, self.basis.shape
    if grids[0] != grids[1]:
      raise ValueError(f'grouping of grid {grids[0]} with a basis of grid {grids[1]}')

  @property
  def of_coefficients(self) -> 'Process':
    """The same process where data are coefficients: its basis is the identity."""
    return Process(self.grouping, Basis((), self.basis.ranks), self.path)

  def table(
    self, schedule: Schedule, steps: int | Sequence[int], rho: float = 1.0
  ) -> Float[AnyArray, 'rows k']:
    """`schedule.table`, with rows that suit the path.

    On a curved path a solver has its full order along rows that are even in tau, not in alpha
    (`path`), so the levels are warped by `Path.level`, and training on intervals that overlap must
    warp its own. On the linear path nothing changes.
    """
    return self.path.level(schedules.table(schedule, steps, rho))

  def coefficient_map(
    self, alpha: Shaped[AnyArray, '*batch k']
  ) -> Shaped[AnyArray, '*batch_grid c']:
    """diag A: the signal levels spread over the grid, in the basis's own layout.

    One channel, or all of the data's if the grouping tells channels apart. Any other value per
    group is spread alike.

    Raises ValueError unless there is one level per group.
    """
    k = self.grouping.num_groups
    if alpha.shape[-1] != k:
      raise ValueError(f'{alpha.shape[-1]} signal levels for a grouping of {k} groups')
    return jnp.take(alpha, self.grouping.of_elements, axis=-1)

  def sum_by_group(self, values: Data) -> Float[AnyArray, 'batch k']:
    """Sums over the elements of each group, of values laid out as the coefficients."""
    grouping = self.grouping
    labels = jnp.broadcast_to(grouping.of_elements, values.shape[1:]).ravel()
    elements = values.reshape(values.shape[0], -1).T
    return jax.ops.segment_sum(elements, labels, grouping.num_groups).T

  def diffuse(self, x: Data, z: Data, alpha: Levels) -> Data:
    """x_t = U (a(A) U^T x + b(A) U^T z) (Eq. 6, 11), pixels of data [batch, *grid, c]."""
    a, b = self._mix(alpha)
    basis = self.basis
    return basis.synthesize(a * basis.analyze(x) + b * basis.analyze(z))

  def advance(self, x_t: Data, u: Data, alpha: Levels, next_alpha: Levels) -> Data:
    """One step from `alpha` to `next_alpha` with the prediction u held fixed (Eq. 9, 17).

    Exact for that u: the x and z implied by (x_t, u) are mixed at the next levels. Groups whose
    level does not change keep their coefficients. It runs towards data and towards noise alike.
    """
    basis = self.basis
    if self.path.straight:
      change = self.coefficient_map(next_alpha - alpha)
      return x_t + basis.synthesize(change * basis.analyze(u))
    (a, b), (next_a, next_b) = self._mix(alpha), self._mix(next_alpha)
    grow, move = (next_a - a) + (next_b - b), next_a * b - a * next_b
    change = (grow * basis.analyze(x_t) + move * basis.analyze(u)) / (a + b)
    return x_t + basis.synthesize(change)

  def between(self, alpha: Levels, next_alpha: Levels, fraction: Scalar) -> Levels:
    """The levels between `alpha` (fraction 0) and `next_alpha` (1), evenly in tau.

    Exact at both ends, and for groups whose level does not change.
    """
    tau, next_tau = self.path.tau(alpha), self.path.tau(next_alpha)
    level = self.path.level(tau + fraction * (next_tau - tau))
    stays = (alpha == next_alpha) | (fraction == 0)
    return jnp.where(stays, alpha, jnp.where(fraction == 1, next_alpha, level))

  def replace(self, x: Data, other: Data, groups: Groups) -> Data:
    """x with some groups' coefficients taken from `other`: those whose flag, True or 1, is set."""
    basis = self.basis
    taken = self.coefficient_map(groups)
    return basis.synthesize(jnp.where(taken, basis.analyze(other), basis.analyze(x)))

  def _mix(self, alpha):
    level = self.coefficient_map(alpha)
    return self.path.signal(level), self.path.noise(level)
