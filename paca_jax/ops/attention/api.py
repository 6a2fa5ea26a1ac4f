"""The attention of a PaCa block and its residual: patches attend to clusters, or to all patches (section 3.1)."""

from functools import partial

import jax
from jaxtyping import Array, Bool, Float

from paca_jax.ops.attention import cudnn, reference
from paca_jax.ops.attention.reference import AttentionWeights, ClusterWeights, Drop
from paca_jax.ops.implementation import Implementation, always, choose
from paca_jax.ops.pallas.cores import Core, target_core
from paca_jax.ops.residual import Residual
from paca_jax.sharding import by_images, model_shards


def residual_attention(
    x: Float[Array, "B N C"],
    assignment: Float[Array, "B M N"] | None,
    clusters: ClusterWeights,
    weights: AttentionWeights,
    num_heads: int,
    residual: Residual,
    drop: Drop | None = None,
    implementation: Implementation | None = None,
    kept: Bool[Array, "B M"] | None = None,
) -> Float[Array, "B N C"]:
    """Returns patches plus what each gathers from clusters, or from all patches, by multi-head attention.

    With `"pallas_tpu"` neither normalized patches nor scores leave the chip. It takes a branch of LayerNorm, attention and
    drop-path scale only, and clusters with a LayerNorm. With `"cudnn"` scores do not leave the chip. It takes 16-bit types,
    even numbers of patches and clusters, and heads of a multiple of 8 channels. Both take all clusters, no dropped attention
    weights, and heads that the mesh does not split.

    Args:
        x: patches.
        assignment: of patches to clusters; None for plain attention.
        clusters: the parameters of clusters, in float32.
        weights: those of attention, in float32.
        num_heads: attention heads; they divide the channels.
        residual: the branch around the attention.
        drop: a function of the attention weights, such as dropout.
        implementation: see `paca_jax.ops.implementation`.
        kept: the clusters that patches attend to; None for all. Without any, they gather zeros.
    """

    def fused_refusal() -> str | None:
        if model_shards() > 1:
            return "the mesh splits heads over its model axis"
        if drop is not None:
            return "attention weights are dropped"
        return None if kept is None else "clusters are removed"

    def refusal() -> str | None:
        if assignment is not None and clusters.norm is None:
            return "the clusters have no LayerNorm"
        from paca_jax.ops.attention import tpu  # with Pallas, which takes long to import

        return fused_refusal() or residual.refusal() or tpu.refusal(x, assignment, num_heads)

    def cudnn_refusal() -> str | None:
        return fused_refusal() or cudnn.refusal(x, x.shape[1] if assignment is None else assignment.shape[1], num_heads)

    chosen = choose("attention", implementation, {"xla_cpu": always, "pallas_tpu": refusal, "cudnn": cudnn_refusal})
    if chosen == "pallas_tpu":
        return _kernels(x, assignment, clusters, weights, residual, num_heads, target_core())
    attend = cudnn.attend_fused if chosen == "cudnn" else partial(reference.attend_plainly, drop=drop, kept=kept)
    return reference.residual_attention(x, assignment, clusters, weights, num_heads, residual, attend, implementation)


@partial(jax.jit, static_argnames=("num_heads", "core"), inline=True)
def _kernels(
    x: Array,
    assignment: Array | None,
    clusters: ClusterWeights,
    weights: AttentionWeights,
    residual: Residual,
    num_heads: int,
    core: Core,
) -> Array:
    from paca_jax.ops.attention import tpu

    function = partial(tpu.fused_attention, num_heads=num_heads, core=core)
    return by_images(function, (x, assignment, residual.scales(x)), (residual.norm, clusters, weights))
