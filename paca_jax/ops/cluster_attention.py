"""Patch-to-cluster attention as one function: from normalised patches and clusters to the output projection (section 3.1)."""

from collections.abc import Callable
from functools import partial

import jax
from jaxtyping import Array, Float

from paca_jax.ops.attention import attend, attention_weights
from paca_jax.ops.dense import channels_dot
from paca_jax.ops.kernels.attention import AttentionWeights, fits, fused_cluster_attention
from paca_jax.sharding import by_images, constrain, model_shards, target_platform

Drop = Callable[[Float[Array, "B H N T"]], Float[Array, "B H N T"]]


def cluster_attention(
    patches: Float[Array, "B N C"],
    attended: Float[Array, "B T C"],
    weights: AttentionWeights,
    num_heads: int,
    drop: Drop | None = None,
) -> Float[Array, "B N C"]:
    """Returns what each patch gathers from the attended tokens: multi-head attention between its four dense layers.

    On a TPU two kernels do it, whose scores never leave the chip. Elsewhere, and where they do not apply (weights of attention
    that are dropped, heads that are split over devices, sizes that do not fit), it is done operation by operation.

    Args:
        patches: queries come from them.
        attended: keys and values come from them: clusters, or patches in plain attention.
        weights: the parameters, in float32.
        num_heads: attention heads; they divide the channels.
        drop: what is done to the weights of attention, such as dropout.
    """
    if target_platform() != "tpu" or drop is not None or model_shards() > 1 or not fits(patches, attended, num_heads):
        return _operations(patches, attended, weights, num_heads, drop)
    return _by_platform(patches, attended, weights, num_heads)


@partial(jax.jit, static_argnums=3, inline=True)
def _by_platform(patches: Array, attended: Array, weights: AttentionWeights, num_heads: int) -> Array:
    kernels, operations = (partial(form, num_heads=num_heads) for form in (_kernels, _operations))
    # A gradient keeps what both forms ask for: the operations ask for no more than the kernels do.
    return jax.lax.platform_dependent(patches, attended, weights, tpu=kernels, default=jax.checkpoint(operations))


def _kernels(patches: Array, attended: Array, weights: AttentionWeights, num_heads: int) -> Array:
    def own_images(patches: Array, attended: Array, *weights: Array) -> Array:
        return fused_cluster_attention(patches, attended, AttentionWeights(*weights), num_heads)

    return by_images(own_images, (patches, attended), weights)


def _operations(patches: Array, attended: Array, weights: AttentionWeights, num_heads: int, drop: Drop | None = None) -> Array:
    def dense(x: Array, kernel: Array, bias: Array) -> Array:
        return channels_dot(x, kernel.astype(x.dtype), None) + bias.astype(x.dtype)

    def heads(x: Array) -> Array:
        return constrain(x.reshape(*x.shape[:2], num_heads, -1), "batch", None, "heads", None)

    query = heads(dense(patches, weights.query, weights.query_bias))
    key = heads(dense(attended, weights.key, weights.key_bias))
    value = heads(dense(attended, weights.value, weights.value_bias))
    shares = attention_weights(query, key)
    if drop is not None:
        shares = drop(shares)
    return dense(attend(shares, value).reshape(patches.shape), weights.out, weights.out_bias)
