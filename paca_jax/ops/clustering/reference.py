"""Convolution clustering (PaCa-ViT, section 3.2) in plain JAX: from patches to their assignment to clusters.

A = softmax over patches of GELU(GELU(depthwise(norm(X))) W_1) W_2
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.cast.api import cast_weights
from paca_jax.ops.depthwise.api import depthwise_gelu
from paca_jax.ops.implementation import Implementation, always, choose
from paca_jax.ops.nn.dense import dense
from paca_jax.ops.nn.gelu import gelu
from paca_jax.ops.nn.softmax import softmax
from paca_jax.ops.norm.api import NormWeights, layer_norm


class ClusteringWeights(NamedTuple):
    """The parameters of convolution clustering: a depthwise convolution and two dense layers, the last without bias."""

    depthwise: Float[Array, "K K 1 C"]
    depthwise_bias: Float[Array, "C"]
    pointwise: Float[Array, "C C"]
    pointwise_bias: Float[Array, "C"]
    project: Float[Array, "C M"]


def conv_clustering(
    x: Float[Array, "B H W C"], norm: NormWeights | None, weights: ClusteringWeights, implementation: Implementation | None
) -> Float[Array, "B M N"]:
    """Returns the assignment; the arguments are those of `ops.conv_clustering`."""
    depthwise, depthwise_bias, pointwise, pointwise_bias, project = cast_weights(weights, x.dtype, implementation)
    patches = x if norm is None else layer_norm(x, norm, implementation)
    active = depthwise_gelu(patches, depthwise, depthwise_bias, False, implementation)
    mixed = jax.checkpoint(gelu)(dense(active, pointwise, pointwise_bias, implementation))
    mixed = mixed.reshape(x.shape[0], -1, x.shape[-1])
    if choose("assignment", implementation, {"xla_cpu": always}) == "xla_cpu":
        return assign_patches(dense(mixed, project, None, implementation))
    # By images, so that the logits of a cluster lie side by side, as the softmax reads them.
    kernels = jnp.broadcast_to(project.T, (mixed.shape[0], *project.T.shape))
    return softmax(jnp.einsum("bmc,bnc->bmn", kernels, mixed))


def assign_patches(logits: Float[Array, "B N M"]) -> Float[Array, "B M N"]:
    """Returns the assignment of patches to clusters: a softmax over the N patches, so that each cluster sums to one."""
    weights = jax.nn.softmax(logits.astype(jnp.float32), axis=1).astype(logits.dtype)
    return jnp.swapaxes(weights, 1, 2)
