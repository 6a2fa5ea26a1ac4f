"""Dense layers over channels."""

from functools import partial

import jax
from jaxtyping import Array, Float

from paca_jax.ops.implementation import Implementation, always, choose


def dense(
    x: Float[Array, "*B C"],
    kernel: Float[Array, "C D"],
    bias: Float[Array, "D"] | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "*B D"]:
    """Multiplies the last axis by a matrix and adds a bias.

    `"xla_cpu"` merges the leading axes first: the gradient of the kernel over several axes makes XLA for CPUs transpose whole
    maps.
    """
    y = _product(x, kernel, by_rows=choose("dense", implementation, {"xla_cpu": always}) == "xla_cpu")
    return y if bias is None else y + bias


@partial(jax.jit, static_argnames="by_rows", inline=True)
def _product(x: Array, kernel: Array, by_rows: bool) -> Array:
    if by_rows:
        rows = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())))
        return rows.reshape(*x.shape[:-1], kernel.shape[-1])
    return jax.lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
