"""LayerNorm of rows within a kernel, forward and backward.

Kernels take the parameters as one array of two rows, scale and bias.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LAYER_NORM_EPSILON = 1e-6


class NormWeights(NamedTuple):
    """The parameters of a LayerNorm."""

    scale: Float[Array, "C"]
    bias: Float[Array, "C"]


def stack(weights: NormWeights) -> Float[Array, "2 C"]:
    """Returns the parameters as kernels take them."""
    return jnp.stack([weights.scale, weights.bias]).astype(jnp.float32)


@jax.jit
def normalise(x: Float[Array, "R C"], weights: Float[Array, "2 C"]) -> Float[Array, "R C"]:
    """Returns the LayerNorm of rows, in their type."""
    standard, _ = _standardise(x)
    return (standard * weights[:1] + weights[1:]).astype(x.dtype)


@jax.jit
def normalise_backward(
    x: Float[Array, "R C"], dy: Float[Array, "R C"], weights: Float[Array, "2 C"]
) -> tuple[Float[Array, "R C"], Float[Array, "R C"]]:
    """Returns the gradient of rows and, to be summed over rows, that of the scale; `dy` is float32."""
    standard, deviation = _standardise(x)
    dstandard = dy * weights[:1]
    mean = jnp.mean(dstandard, axis=1, keepdims=True)
    slope = jnp.mean(dstandard * standard, axis=1, keepdims=True)
    return (dstandard - mean - standard * slope) * deviation, dy * standard


def _standardise(x: Float[Array, "R C"]) -> tuple[Float[Array, "R C"], Float[Array, "R 1"]]:
    """Returns rows of mean 0 and variance 1, and one over their standard deviations."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=1, keepdims=True)
    deviation = jax.lax.rsqrt(jnp.mean(centred * centred, axis=1, keepdims=True) + LAYER_NORM_EPSILON)
    return centred * deviation, deviation
