"""The attention of a PaCa block and its residual as one function: clusters are gathered, and patches attend (section 3.1)."""

from collections.abc import Callable
from functools import partial

from jaxtyping import Array, Float

from paca_jax.ops.attention.reference import AttentionWeights, ClusterWeights, attend, attention_weights, gather_clusters
from paca_jax.ops.attention.tpu import fits, fused_attention
from paca_jax.ops.nn.dense import channels_dot
from paca_jax.ops.norm.api import layer_norm
from paca_jax.ops.residual import Residual
from paca_jax.sharding import by_images, by_platform, constrain, model_shards, target_platform

Drop = Callable[[Float[Array, "B H N T"]], Float[Array, "B H N T"]]


def residual_attention(
    x: Float[Array, "B N C"],
    assignment: Float[Array, "B M N"] | None,
    clusters: ClusterWeights,
    weights: AttentionWeights,
    num_heads: int,
    residual: Residual,
    drop: Drop | None = None,
) -> Float[Array, "B N C"]:
    """Returns patches plus what each gathers from clusters, or from all patches, by multi-head attention.

    On a TPU kernels gather clusters, attend, and compute the gradients of both; neither normalized patches nor scores leave the
    chip. Elsewhere, and where they do not apply (a branch that is more than LayerNorm, attention and share; clusters without
    LayerNorm; weights of attention that are dropped, heads that are split over devices, sizes that do not fit), it is done
    operation by operation.

    Args:
        x: patches.
        assignment: of patches to clusters; None for plain attention.
        clusters: the parameters of clusters, in float32.
        weights: those of attention, in float32.
        num_heads: attention heads; they divide the channels.
        residual: what surrounds the attention.
        drop: what is done to the weights of attention, such as dropout.
    """
    plain = residual.is_plain and (assignment is None or clusters.norm is not None) and drop is None
    if target_platform() != "tpu" or not plain or model_shards() > 1 or not fits(x, assignment, num_heads):
        return _operations(x, assignment, clusters, weights, residual, num_heads, drop)
    return by_platform(_kernels, _operations, x, assignment, clusters, weights, residual, num_heads=num_heads)


def _kernels(
    x: Array,
    assignment: Array | None,
    clusters: ClusterWeights,
    weights: AttentionWeights,
    residual: Residual,
    num_heads: int,
) -> Array:
    function = partial(fused_attention, num_heads=num_heads)
    return by_images(function, (x, assignment, residual.shares(x)), (residual.norm, clusters, weights))


def _operations(
    x: Array,
    assignment: Array | None,
    clusters: ClusterWeights,
    weights: AttentionWeights,
    residual: Residual,
    num_heads: int,
    drop: Drop | None = None,
) -> Array:
    def dense(x: Array, kernel: Array, bias: Array) -> Array:
        return channels_dot(x, kernel.astype(x.dtype), None) + bias.astype(x.dtype)

    def heads(x: Array) -> Array:
        return constrain(x.reshape(*x.shape[:2], num_heads, -1), "batch", None, "heads", None)

    patches = residual.before(x)
    tokens = patches
    if assignment is not None:
        tokens = clusters.place(gather_clusters(assignment, patches))
        tokens = tokens if clusters.norm is None else layer_norm(tokens, clusters.norm)
    query = heads(dense(patches, weights.query, weights.query_bias))
    key = heads(dense(tokens, weights.key, weights.key_bias))
    value = heads(dense(tokens, weights.value, weights.value_bias))
    shares = attention_weights(query, key)
    if drop is not None:
        shares = drop(shares)
    return residual.add(x, dense(attend(shares, value).reshape(x.shape), weights.out, weights.out_bias))
