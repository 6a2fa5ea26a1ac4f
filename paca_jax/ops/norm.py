"""LayerNorm over channels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LAYER_NORM_EPSILON = 1e-6


class NormWeights(NamedTuple):
    """The parameters of a LayerNorm."""

    scale: Float[Array, "C"]
    bias: Float[Array, "C"]


def layer_norm(x: Float[Array, "*B C"], weights: NormWeights) -> Float[Array, "*B C"]:
    """Returns `x` with mean 0 and variance 1 over the channels, scaled and shifted, in its type; it reduces in float32."""
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
    return ((wide - mean) * (jax.lax.rsqrt(variance + LAYER_NORM_EPSILON) * weights.scale) + weights.bias).astype(x.dtype)
