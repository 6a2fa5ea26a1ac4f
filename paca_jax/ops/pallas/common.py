"""What the kernels have in common: the size of a register, products of matrices, and blocks that stay."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

LANES = 128
NN = (((1,), (0,)), ((), ()))  # a @ b
NT = (((1,), (1,)), ((), ()))  # a @ b.T
TN = (((0,), (0,)), ((), ()))  # a.T @ b
SHARES = pl.BlockSpec(memory_space=pltpu.SMEM)  # one number for each image, which every step has
Ref = Any


def round_up(number: int, multiple: int) -> int:
    """Returns the smallest multiple that is not below the number."""
    return math.ceil(number / multiple) * multiple


def largest_divisor(number: int, limit: int) -> int:
    """Returns the largest divisor that is not above the limit, or 1."""
    return max((divisor for divisor in range(2, limit + 1) if number % divisor == 0), default=1)


def dot(a: Float[Array, "..."], b: Float[Array, "..."], dimensions: Any) -> Float[Array, "..."]:
    """Multiplies matrices and sums in float32."""
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


@jax.jit
def sum_rows(value: Float[Array, "R C"]) -> Float[Array, "8 C"]:
    """Sums rows, and leaves eight sums to be added up."""
    return jnp.sum(value.reshape(-1, 8, value.shape[1]), axis=0)


def whole(array: Any) -> pl.BlockSpec:
    """Returns the block that is the whole array: every step of a grid of two axes has it, and it is held once."""
    return pl.BlockSpec(array.shape, lambda image, part: (0,) * len(array.shape), pipeline_mode=pl.Buffered(1))
