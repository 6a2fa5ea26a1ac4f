"""Convolution clustering: from patches to their assignment to clusters (section 3.2)."""

from functools import partial

import jax
from jaxtyping import Array, Float

from paca_jax.ops.clustering import reference
from paca_jax.ops.clustering.reference import ClusteringWeights
from paca_jax.ops.implementation import Implementation, always, choose
from paca_jax.ops.norm.reference import NormWeights
from paca_jax.ops.pallas.cores import Core, target_core
from paca_jax.sharding import by_images, model_shards


def conv_clustering(
    x: Float[Array, "B H W C"],
    norm: NormWeights | None,
    weights: ClusteringWeights,
    implementation: Implementation | None = None,
) -> Float[Array, "B M N"]:
    """Returns `assign_patches` of LayerNorm, depthwise convolution, GELU, dense, GELU, dense without bias.

    With `"pallas_tpu"` nothing between patches and assignment leaves the chip (for large images the logits do), and the
    gradient keeps these two. It takes patches with a LayerNorm, a mesh that does not split heads, windows of at most 15
    patches, and rows and weights that fit into a chip's vector memory.

    Args:
        x: patches.
        norm: parameters of the LayerNorm, in float32; None for none.
        weights: the other parameters, in float32.
        implementation: see `paca_jax.ops.implementation`.
    """

    def refusal() -> str | None:
        if model_shards() > 1:
            return "the mesh has a model axis"
        from paca_jax.ops.clustering import tpu  # with Pallas, which takes long to import

        return "no LayerNorm precedes it" if norm is None else tpu.refusal(x, weights)

    if choose("clustering", implementation, {"xla_cpu": always, "pallas_tpu": refusal}) == "pallas_tpu":
        return _kernels(x, norm, weights, target_core())
    return reference.conv_clustering(x, norm, weights, implementation)


@partial(jax.jit, static_argnames="core", inline=True)
def _kernels(x: Array, norm: NormWeights, weights: ClusteringWeights, core: Core) -> Array:
    from paca_jax.ops.clustering import tpu

    return by_images(partial(tpu.fused_clustering, core=core), (x,), (norm, weights))
