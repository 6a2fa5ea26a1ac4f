"""The vector registers and matrix units of a TPU core: their sizes, products and sums."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LANES = 128  # columns of a register
SUBLANES = 8  # rows of a float32 register
PACKED_SUBLANES = 16  # rows of a bfloat16 register; bfloat16 is the narrowest type that the kernels take
NN = (((1,), (0,)), ((), ()))  # a @ b
NT = (((1,), (1,)), ((), ()))  # a @ b.T
TN = (((0,), (0,)), ((), ()))  # a.T @ b


def round_up(number: int, multiple: int) -> int:
    """Returns the smallest multiple that is not below the number."""
    return math.ceil(number / multiple) * multiple


def largest_divisor(number: int, limit: int) -> int:
    """Returns the largest divisor that is not above the limit, or 1."""
    return max((divisor for divisor in range(2, limit + 1) if number % divisor == 0), default=1)


def dot(a: Float[Array, "..."], b: Float[Array, "..."], dimensions: Any) -> Float[Array, "..."]:
    """Multiplies two matrices and sums in float32."""
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


@jax.jit
def sum_rows(value: Float[Array, "R C"]) -> Float[Array, "8 C"]:
    """Returns eight partial sums over the rows, which the caller adds up."""
    return jnp.sum(value.reshape(-1, SUBLANES, value.shape[1]), axis=0)
