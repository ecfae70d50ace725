"""The arrays and numbers that the method takes."""

import jax
import numpy as np
from jaxtyping import Float

AnyArray = jax.Array | np.ndarray
"""An array of jax, also a traced one, or of numpy."""

Scalar = float | Float[AnyArray, '']
"""A real number."""
