"""Networks by name, and what a network must be. They know nothing of diffusion."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gdm_jax.models.context_unet import ContextUNet
from gdm_jax.models.ddpmpp import DDPMPP
from gdm_jax.models.group_causal import GroupCausal
from gdm_jax.models.mlp import MLP
from gdm_jax.models.tokens import Tokens
from gdm_jax.typing import AnyArray


@runtime_checkable
class Network(Protocol):
  """A `flax.linen.Module` that maps data [b, *grid, c] to [b, *grid, out_channels].

  `build.system` makes it from the common attributes below and the options of its section in the
  config, `config.model.NAME`, which are its other attributes by name. A network with an attribute
  `remat` or `convolution` is given `config.machine.remat` and the machine's convolutions, one with
  `elements` or `mix` what is known of the data's elements and the path (`GroupCausal`).

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


@runtime_checkable
class GroupwiseNetwork(Network, Protocol):
  """A network whose prediction of a group is a conditional: it depends on the known groups, which
  it can keep as context, and on that group (`GroupCausal`, `ContextUNet` document the methods)."""

  tokens: Tokens

  def encode(self, *args: Any, **kwargs: Any) -> Any:
    """The cache: what later groups need to know of tokens that are clean."""

  def context(self, *args: Any, **kwargs: Any) -> Any:
    """What the steps of a group need of the cache, computed once when the group begins."""

  def denoise(self, *args: Any, **kwargs: Any) -> Array:
    """The prediction of the tokens that are under way, given their context."""


@runtime_checkable
class ConditionalsNetwork(GroupwiseNetwork, Protocol):
  """A groupwise network that trains all groups in one pass, each with a context of its own.

  Other groupwise networks train with one context an example, and a group under way never sees
  another that is under way.
  """

  def conditionals(self, *args: Any, **kwargs: Any) -> Array:
    """The predictions of all groups in one pass, each with its own level and context."""


NETWORKS: dict[str, Callable[..., Network]] = {
  'context_unet': ContextUNet,
  'ddpmpp': DDPMPP,
  'group_causal': GroupCausal,
  'mlp': MLP,
}
"""By the name in `config.model.name`, which is also that of their section in `config.model`."""
