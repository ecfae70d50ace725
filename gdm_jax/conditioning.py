"""What a network is shown: the signal levels A, never the time t (Section 3.1)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from gdm_jax import sampling, schedule
from gdm_jax.models import Network
from gdm_jax.models.tokens import Elements
from gdm_jax.path import Path
from gdm_jax.process import Data, Levels, Process
from gdm_jax.schedule import Schedule
from gdm_jax.solvers import Predict
from gdm_jax.typing import AnyArray

NOISE_LABELS = 1000
"""The noise label of pure noise: DDPM++'s embedding was made for 0..1000."""

DEVIATION = 0.5
"""The standard deviation to expect of pixels in [-1, 1] (EDM's sigma_data)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
  """u(x_t, A) = E[x - z | x_t] by a network (Section 3.1, Eq. 8), which is shown:

  | argument        | holds                                               | range      |
  |-----------------|-----------------------------------------------------|------------|
  | `x`             | x_t, and A spread over the grid as one more channel | A: 0..1    |
  |                 | (or as many as the data have, if groups split them) |            |
  | `noise_label`   | 1000 (1 - mean A), the mean over positions          | 0..1000    |
  | `augment_label` | the k levels of a frequency basis, then the nine    | 0..1, then |
  |                 | labels of EDM's augmentation if the data have it    | about 0    |
  | `class_label`   | one-hot, all zeros if the label is hidden           | 0 or 1     |

  The map of A tells the network the level of every position, so one network serves every schedule
  over its groups. The noise label needs no t, and for k = 1 it is 1000 t, as in EDM. In a frequency
  basis the map does not line up with pixels, so the levels are also given as k numbers. Labels are
  hidden in training at random, so that sampling can be guided.

  network: see `models.Network`.
  process: its grouping says what the levels are of.
  space: 'pixel', or 'frequency' for the network of Eq. 12 that maps coefficients to coefficients.
  precision: of the network's float32 products (`jax.default_matmul_precision`). By default they are
    float32 on every device; jax itself takes fewer bits on GPUs and TPUs.
  """

  network: Network
  process: Process
  space: str = 'pixel'
  precision: str = 'float32'

  @property
  def num_levels(self) -> int:
    """How many signal levels the augmentation label begins with."""
    return num_levels(self.network, self.process)

  @property
  def is_groupwise(self) -> bool:
    """Whether the network predicts each group from the known ones (`Cached`)."""
    return is_groupwise(self.network)

  @property
  def has_conditionals(self) -> bool:
    """Whether one pass of it predicts all groups, each from its own known ones."""
    return has_conditionals(self.network)

  def init(self, key: PRNGKeyArray) -> dict:
    """Parameters drawn from `key`."""
    grid, network = self.process.grouping.shape, self.network
    levels = self.process.grouping.of_elements.shape[-1]
    x = jnp.zeros((1, *grid, network.out_channels + levels))
    labels = jnp.zeros((1, network.augment_dim)) if network.augment_dim else None
    return network.init(key, x, jnp.zeros(1), augment_label=labels)['params']

  def __call__(
    self,
    params: dict,
    x_t: Data,
    alpha: Float[AnyArray, 'batch k'],
    label: Int[AnyArray, ' batch'] | None = None,
    augment: Float[AnyArray, 'batch augment'] | None = None,
    *,
    train: bool = False,
    rngs: dict[str, PRNGKeyArray] | None = None,
  ) -> Data:
    """The prediction u, in pixels whatever the basis and the space.

    label: class numbers, -1 if hidden; None hides all. augment: EDM's labels of what was done to
    the data; None is nothing. train: use dropout, with a key in `rngs`.
    """
    basis, network = self.process.basis, self.network
    if augment is None:
      augment = jnp.zeros((x_t.shape[0], network.augment_dim - self.num_levels), alpha.dtype)
    if self.space == 'frequency':
      x_t = basis.analyze(x_t)
    levels = self.process.coefficient_map(alpha).astype(x_t.dtype)
    with jax.default_matmul_precision(self.precision):
      u = network.apply(
        {'params': params},
        jnp.concatenate([x_t, levels], -1),
        NOISE_LABELS * (1 - levels.mean(tuple(range(1, levels.ndim)))),
        class_label=self._class_label(label),
        augment_label=jnp.concatenate([alpha[:, : self.num_levels], augment], -1),
        train=train,
        rngs=rngs,
      )
    return basis.synthesize(u) if self.space == 'frequency' else u

  def conditionals(
    self,
    params: dict,
    x: Data,
    x_t: Data,
    alpha: Float[AnyArray, 'batch k'],
    diffusion: Schedule,
    label: Int[AnyArray, ' batch'] | None = None,
    augment: Float[AnyArray, 'batch augment'] | None = None,
    *,
    train: bool = False,
    rngs: dict[str, PRNGKeyArray] | None = None,
  ) -> Data:
    """As `__call__`, of all groups in one pass; the network must have `conditionals`.

    x: the data. x_t: groups at levels of their own. diffusion: says which groups were generated
    before each, and are its context, taken from x.
    """
    basis = self.process.basis
    earlier = schedule.earlier(diffusion)
    together = ~earlier & ~jnp.swapaxes(earlier, 1, 2)
    with jax.default_matmul_precision(self.precision):
      u = self.network.apply(
        {'params': params},
        *(basis.analyze(x), basis.analyze(x_t), alpha, earlier, together),
        *(self._class_label(label), augment),
        train=train,
        rngs=rngs,
        method='conditionals',
      )
    return basis.synthesize(u)

  def _class_label(self, label):
    return None if label is None else jax.nn.one_hot(label, self.network.num_classes)

  def bind(
    self,
    params: dict,
    label: Int[AnyArray, ' batch'] | None = None,
    guidance: float | Float[np.ndarray, ' k'] = 1.0,
  ) -> Predict:
    """`predict(x_t, alpha)`, what `sampling` and `likelihood` take.

    guidance: the scale of classifier-free guidance, or one for every group of the process; 1 is the
    model as trained (`sampling.guided`). Raises ValueError for another scale without labels.
    """
    if label is None and np.any(np.asarray(guidance) != 1):
      raise ValueError(f'guidance = {guidance} needs labels')
    return sampling.guided(functools.partial(self, params), label, guidance, self.process)

  def bind_cached(
    self,
    params: dict,
    label: Int[AnyArray, ' batch'] | None = None,
    guidance: float | Float[np.ndarray, ' k'] = 1.0,
  ) -> 'Cached':
    """As `bind`, for `caching`; the network must be groupwise."""
    if label is None and np.any(np.asarray(guidance) != 1):
      raise ValueError(f'guidance = {guidance} needs labels')
    return Cached(self, params, label, guidance)


class Cached(NamedTuple):
  """A groupwise network with its parameters: what `caching` walks with, in coefficients."""

  predictor: Predictor
  params: dict
  label: Int[AnyArray, ' batch'] | None
  guidance: float | Float[np.ndarray, ' k']

  @property
  def groups(self) -> Int[np.ndarray, ' T']:
    """The group of each token."""
    return self.predictor.network.tokens.groups

  def encode(self, x: Data, ids: Int[AnyArray, ' n']) -> PyTree:
    """The cache of clean tokens; leaves are [batch, heads, n, features], n of them along axis 2."""
    return self._apply('encode', x, ids)

  def context(self, cache: PyTree, known: Int[AnyArray, ' m']) -> PyTree:
    """What the steps of a group need of the cache; twice as many examples if guided.

    known: which token each of the cache is; the number of all tokens if it is not known.
    """
    labels = self.label
    if np.any(np.asarray(self.guidance) != 1):
      labels = sampling.guided_labels(labels)
      cache = jax.tree.map(lambda a: jnp.repeat(a, 2, axis=0), cache)
    return self._apply('context', cache, known, self.predictor._class_label(labels))

  def predict(self, cache: PyTree, known: Int[AnyArray, ' m'], ids: Int[AnyArray, ' n']) -> Predict:
    """`predict(x_t, alpha)` for the tokens `ids`, which move together; 0 for all others.

    known: as for `context`, which is computed here, not at every step.
    """
    context = self.context(cache, known)

    def predict(x_t, alpha, label):
      level = jnp.take(alpha, jnp.take(jnp.asarray(self.groups), ids[0]), axis=1)
      label = self.predictor._class_label(label)
      return self._apply('denoise', context, x_t, ids, level, label)

    process = self.predictor.process.of_coefficients
    return sampling.guided(predict, self.label, self.guidance, process)

  def _apply(self, method, *args):
    with jax.default_matmul_precision(self.predictor.precision):
      return self.predictor.network.apply({'params': self.params}, *args, method=method)


def is_groupwise(network: Network | Callable[..., Network]) -> bool:
  """Whether a network, or a class of networks, is a `models.GroupwiseNetwork`."""
  return hasattr(network, 'denoise')


def has_conditionals(network: Network | Callable[..., Network]) -> bool:
  """Whether a network, or a class of networks, is a `models.ConditionalsNetwork`."""
  return hasattr(network, 'conditionals')


def num_levels(network: Network | Callable[..., Network], process: Process) -> int:
  """How many signal levels the network's augmentation label begins with (`Predictor`)."""
  return 0 if process.basis.is_pixel or is_groupwise(network) else process.grouping.num_groups


def elements(process: Process, channels: int) -> Elements:
  """What a network may know of the elements before it sees data.

  Pixels in [-1, 1] deviate by about 0.5, as in EDM. Coefficients fall with the frequency f as 1/f,
  as those of natural images do, at the same power in all; f is rank^(1 / axes).
  """
  labels = np.broadcast_to(process.grouping.of_elements, (*process.basis.shape, channels))
  if process.basis.is_pixel:
    return Elements(labels, np.full(labels.shape, DEVIATION))
  ranks = np.asarray(process.basis.ranks)
  amplitude = (1.0 + ranks) ** (-1 / ranks.ndim)
  amplitude *= DEVIATION / np.sqrt(np.mean(amplitude**2))
  return Elements(labels, np.broadcast_to(amplitude[..., None], labels.shape), ranks)


def mix(path: Path) -> Callable[[Levels], tuple[Levels, Levels]]:
  """level -> (a, b), the signal and the noise of x_t = a x + b z."""
  return lambda level: (path.signal(level), path.noise(level))
