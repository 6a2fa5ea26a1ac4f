"""The matrix product of dense layers."""

from functools import partial
from typing import Any

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def channels_dot(
    x: Float[Array, "*B C"],
    kernel: Float[Array, "C D"],
    dimension_numbers: Any,
    precision: jax.lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Float[Array, "*B D"]:
    """Multiplies the last axis of `x` by `kernel`, as the `dot_general` of a Flax dense layer.

    On a CPU the leading axes are merged first: the kernel's gradient over several axes would make XLA transpose whole maps.
    """
    del dimension_numbers  # a dense layer's are always these
    return _dot(x, kernel, precision, preferred_element_type)


@partial(jax.jit, static_argnums=(2, 3), inline=True)
def _dot(x: Array, kernel: Array, precision: jax.lax.PrecisionLike, dtype: DTypeLike | None) -> Array:
    options: dict[str, Any] = {"precision": precision, "preferred_element_type": dtype}

    def by_rows(x: Array, kernel: Array) -> Array:
        rows = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **options)
        return rows.reshape(*x.shape[:-1], kernel.shape[-1])

    def direct(x: Array, kernel: Array) -> Array:
        return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())), **options)

    return jax.lax.platform_dependent(x, kernel, cpu=by_rows, default=direct)
