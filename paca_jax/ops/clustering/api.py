"""Convolution clustering as one function: from patches to their assignment to clusters (section 3.2)."""

from jaxtyping import Array, Float

from paca_jax.ops.attention.reference import assign_patches
from paca_jax.ops.clustering.tpu import ClusteringWeights, fits, fused_clustering
from paca_jax.ops.nn.dense import channels_dot
from paca_jax.ops.nn.depthwise import depthwise_conv
from paca_jax.ops.nn.gelu import gelu
from paca_jax.ops.norm.api import layer_norm
from paca_jax.ops.norm.reference import NormWeights
from paca_jax.sharding import by_images, by_platform, model_shards, target_platform


def conv_clustering(x: Float[Array, "B H W C"], norm: NormWeights | None, weights: ClusteringWeights) -> Float[Array, "B M N"]:
    """Returns `assign_patches` of LayerNorm, depthwise convolution, GELU, dense, GELU, dense without bias.

    On a TPU two kernels compute it and its gradient: nothing between patches and assignment leaves the chip (of large images
    the logits do), and the gradient keeps these two. Elsewhere, and where they do not apply (no LayerNorm; a mesh that splits
    heads; windows of more than 15 patches, rows and weights too large for a chip's memory), it is done operation by operation.

    Args:
        x: patches.
        norm: parameters of the LayerNorm, in float32; None for none.
        weights: the other parameters, in float32.
    """
    if target_platform() != "tpu" or norm is None or model_shards() > 1 or not fits(x, weights):
        return _operations(x, norm, weights)
    return by_platform(_kernels, _operations, x, norm, weights)


def _kernels(x: Array, norm: NormWeights, weights: ClusteringWeights) -> Array:
    return by_images(fused_clustering, (x,), (norm, weights))


def _operations(x: Array, norm: NormWeights | None, weights: ClusteringWeights) -> Array:
    depthwise, depthwise_bias, pointwise, pointwise_bias, project = (weight.astype(x.dtype) for weight in weights)
    patches = x if norm is None else layer_norm(x, norm)
    active = gelu(depthwise_conv(patches, depthwise) + depthwise_bias)
    mixed = gelu(channels_dot(active, pointwise, None) + pointwise_bias)
    return assign_patches(channels_dot(mixed, project, None).reshape(len(x), -1, project.shape[1]))
