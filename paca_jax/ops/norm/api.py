"""LayerNorm over channels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.norm.reference import NormWeights, normalize, normalize_backward, stack
from paca_jax.ops.norm.tpu import fits, fused_layer_norm
from paca_jax.sharding import by_images, by_platform, model_shards, target_platform


def layer_norm(x: Float[Array, "B *S C"], weights: NormWeights) -> Float[Array, "B *S C"]:
    """Returns `x` with mean 0 and variance 1 over the channels, scaled and shifted, in its type; it reduces in float32.

    On a TPU two kernels compute it and its gradient; elsewhere, and where they do not apply (patches that are split over
    devices, other types), operations do.
    """
    if target_platform() != "tpu" or model_shards() > 1:
        return _operations(x, weights)
    patches = x.reshape(len(x), -1, x.shape[-1])
    if not fits(patches):
        return _operations(x, weights)
    return by_platform(_kernels, _operations, patches, weights).reshape(x.shape)


def _kernels(x: Array, weights: NormWeights) -> Array:
    return by_images(fused_layer_norm, (x,), (weights,))


@jax.custom_vjp
def _operations(x: Array, weights: NormWeights) -> Array:
    return normalize(x, stack(weights))


def _forward(x: Array, weights: NormWeights) -> tuple[Array, tuple[Array, NormWeights]]:
    return _operations(x, weights), (x, weights)


def _backward(kept: tuple[Array, NormWeights], dy: Array) -> tuple[Array, NormWeights]:
    x, weights = kept
    wide = dy.astype(jnp.float32)
    dx, dscale = normalize_backward(x, wide, stack(weights))
    rows = tuple(range(x.ndim - 1))
    sums = NormWeights(jnp.sum(dscale, rows), jnp.sum(wide, rows))
    return dx.astype(x.dtype), jax.tree.map(lambda total, weight: total.astype(weight.dtype), sums, weights)


_operations.defvjp(_forward, _backward)
