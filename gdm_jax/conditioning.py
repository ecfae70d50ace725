"""What a network is shown: the signal levels A, never the time t (Section 3.1)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray

from gdm_jax import sampling
from gdm_jax.models import Network
from gdm_jax.process import Data, Process
from gdm_jax.solvers import Predict
from gdm_jax.typing import AnyArray

NOISE_LABELS = 1000
"""The noise label of pure noise: DDPM++'s embedding was made for 0..1000."""


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
  """u(x_t, A) = E[x - z | x_t] by a network (Section 3.1, Eq. 8), which is shown:

  | argument        | holds                                               | range      |
  |-----------------|-----------------------------------------------------|------------|
  | `x`             | x_t, and A spread over the grid as one more channel | A: 0..1    |
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
  """

  network: Network
  process: Process
  space: str = 'pixel'

  @property
  def num_levels(self) -> int:
    """How many signal levels the augmentation label begins with."""
    return 0 if self.process.basis.is_pixel else self.process.grouping.num_groups

  def init(self, key: PRNGKeyArray) -> dict:
    """Parameters drawn from `key`."""
    grid, network = self.process.grouping.shape, self.network
    x = jnp.zeros((1, *grid, network.out_channels + 1))
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
      augment = jnp.zeros((len(x_t), network.augment_dim - self.num_levels), alpha.dtype)
    if self.space == 'frequency':
      x_t = basis.analyze(x_t)
    levels = self.process.coefficient_map(alpha).astype(x_t.dtype)
    u = network.apply(
      {'params': params},
      jnp.concatenate([x_t, levels], -1),
      NOISE_LABELS * (1 - levels.mean(tuple(range(1, levels.ndim)))),
      class_label=None if label is None else jax.nn.one_hot(label, network.num_classes),
      augment_label=jnp.concatenate([alpha[:, : self.num_levels], augment], -1),
      train=train,
      rngs=rngs,
    )
    return basis.synthesize(u) if self.space == 'frequency' else u

  def bind(
    self, params: dict, label: Int[AnyArray, ' batch'] | None = None, guidance: float = 1.0
  ) -> Predict:
    """`predict(x_t, alpha)`, what `sampling` and `likelihood` take.

    guidance: the scale of classifier-free guidance; 1 is the model as trained (`sampling.guided`).
    Raises ValueError for another scale without labels.
    """
    if label is None and guidance != 1:
      raise ValueError(f'guidance = {guidance} needs labels')
    return sampling.guided(functools.partial(self, params), label, guidance)
