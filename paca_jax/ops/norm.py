"""LayerNorm over channels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.kernels.layer_norm import fits, fused_layer_norm
from paca_jax.ops.kernels.norm import LAYER_NORM_EPSILON, NormWeights
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


def _operations(x: Array, weights: NormWeights) -> Array:
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
    return ((wide - mean) * (jax.lax.rsqrt(variance + LAYER_NORM_EPSILON) * weights.scale) + weights.bias).astype(x.dtype)
