"""LayerNorm over the last axis: the formula and its gradient, which kernels share. They reduce in float32.

For kernels the parameters are one array of two rows, scale and bias.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LAYER_NORM_EPSILON = 1e-6


class NormWeights(NamedTuple):
    """The parameters of a LayerNorm."""

    scale: Float[Array, "C"]
    bias: Float[Array, "C"]


@jax.checkpoint
def layer_norm(x: Float[Array, "*R C"], weights: NormWeights) -> Float[Array, "*R C"]:
    """Returns `x` with mean 0 and variance 1 over the channels, scaled and shifted, in its type; the gradient keeps `x`."""
    return normalize(x, stack(weights))


@jax.custom_vjp
def layer_norm_for_cpus(x: Float[Array, "*R C"], weights: NormWeights) -> Float[Array, "*R C"]:
    """Returns `layer_norm`. Its gradient is written out, which XLA for CPUs runs faster; it has no other derivative."""
    return normalize(x, stack(weights))


def _forward(x: Array, weights: NormWeights) -> tuple[Array, tuple[Array, NormWeights]]:
    return layer_norm_for_cpus(x, weights), (x, weights)


def _backward(kept: tuple[Array, NormWeights], dy: Array) -> tuple[Array, NormWeights]:
    x, weights = kept
    wide = dy.astype(jnp.float32)
    dx, dscale = normalize_backward(x, wide, stack(weights))
    rows = tuple(range(x.ndim - 1))
    sums = NormWeights(jnp.sum(dscale, rows), jnp.sum(wide, rows))
    return dx.astype(x.dtype), jax.tree.map(lambda total, weight: total.astype(weight.dtype), sums, weights)


layer_norm_for_cpus.defvjp(_forward, _backward)


def stack(weights: NormWeights) -> Float[Array, "2 C"]:
    """Returns the parameters as one array."""
    return jnp.stack([weights.scale, weights.bias]).astype(jnp.float32)


@partial(jax.jit, inline=True)
def normalize(x: Float[Array, "*R C"], weights: Float[Array, "2 C"]) -> Float[Array, "*R C"]:
    """Returns the LayerNorm of rows, in their type."""
    centered, deviation = _moments(x)
    return (centered * (deviation * weights[:1]) + weights[1:]).astype(x.dtype)


@partial(jax.jit, inline=True)
def normalize_backward(
    x: Float[Array, "*R C"], dy: Float[Array, "*R C"], weights: Float[Array, "2 C"]
) -> tuple[Float[Array, "*R C"], Float[Array, "*R C"]]:
    """Returns the gradient of rows and, to be summed over rows, that of the scale; `dy` is float32."""
    centered, deviation = _moments(x)
    standard = centered * deviation
    dstandard = dy * weights[:1]
    mean = jnp.mean(dstandard, axis=-1, keepdims=True)
    slope = jnp.mean(dstandard * standard, axis=-1, keepdims=True)
    return (dstandard - mean - standard * slope) * deviation, dy * standard


def _moments(x: Float[Array, "*R C"]) -> tuple[Float[Array, "*R C"], Float[Array, "*R 1"]]:
    """Returns rows minus their means, and the reciprocals of their standard deviations."""
    wide = x.astype(jnp.float32)
    centered = wide - jnp.mean(wide, axis=-1, keepdims=True)
    return centered, jax.lax.rsqrt(jnp.mean(centered * centered, axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
