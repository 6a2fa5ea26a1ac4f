"""A softmax that reduces in float32, and whose derivative keeps no more than its result, in its own type."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_jvp
def softmax(x: Float[Array, "*R N"]) -> Float[Array, "*R N"]:
    """Returns the softmax over the last axis, in the type of `x`."""
    return jax.nn.softmax(x.astype(jnp.float32), axis=-1).astype(x.dtype)


@softmax.defjvp
def _softmax_jvp(
    primals: tuple[Float[Array, "*R N"]], tangents: tuple[Float[Array, "*R N"]]
) -> tuple[Float[Array, "*R N"], Float[Array, "*R N"]]:
    y = jax.lax.optimization_barrier(softmax(*primals))  # else XLA keeps the exponentials for the gradient
    return y, _slope(y, *tangents)


@partial(jax.checkpoint, prevent_cse=False)
def _slope(y: Float[Array, "*R N"], tangent: Float[Array, "*R N"]) -> Float[Array, "*R N"]:
    wide, tangent = y.astype(jnp.float32), tangent.astype(jnp.float32)
    return (wide * (tangent - jnp.sum(wide * tangent, axis=-1, keepdims=True))).astype(y.dtype)
