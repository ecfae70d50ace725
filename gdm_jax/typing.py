"""The arrays and numbers that the method takes."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

AnyArray = jax.Array | np.ndarray
"""An array of jax, also a traced one, or of numpy."""

Size = Any
"""The length of an axis: an int, but symbolic while a program for any batch is exported."""

Scalar = float | Float[AnyArray, '']
"""A real number."""
