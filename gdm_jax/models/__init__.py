"""Networks by name, and what a network must be. They know nothing of diffusion."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gdm_jax.models.ddpmpp import DDPMPP
from gdm_jax.models.mlp import MLP
from gdm_jax.typing import AnyArray


@runtime_checkable
class Network(Protocol):
  """A `flax.linen.Module` that maps data [b, *grid, c] to [b, *grid, out_channels].

  `build.system` makes it from the common attributes below and the options of its section in the
  config, `config.model.NAME`, which are its other attributes by name. A network with an attribute
  `remat` or `convolution` is given `config.machine.remat` and the machine's convolutions.

  A grid, a width or a label that the network cannot have raises ValueError in `__call__`; the
  command then names the config key. The output must be float32 or wider.
  """

  out_channels: int
  num_classes: int
  augment_dim: int
  dtype: DTypeLike

  def init(self, rngs: Any, *args: Any, **kwargs: Any) -> dict:
    """Variables of the module; all are in the collection 'params'."""

  def apply(self, variables: dict, *args: Any, **kwargs: Any) -> Array:
    """`__call__` with these variables."""

  def __call__(
    self,
    x: Float[AnyArray, 'b *grid c'],
    noise_label: Float[AnyArray, ' b'],
    class_label: Float[AnyArray, 'b classes'] | None = None,
    augment_label: Float[AnyArray, 'b augment'] | None = None,
    train: bool = False,
  ) -> Float[AnyArray, 'b *grid out']:
    """`conditioning.Predictor` says what the arguments hold; a label of None is all zeros.

    noise_label: 0..1000. class_label: [b, num_classes]. augment_label: [b, augment_dim].
    train: use dropout, from the stream 'dropout'.
    """


NETWORKS: dict[str, Callable[..., Network]] = {'ddpmpp': DDPMPP, 'mlp': MLP}
"""By the name in `config.model.name`, which is also that of their section in `config.model`."""
