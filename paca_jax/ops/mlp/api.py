"""The MLP of a PaCa block and its residual: dense, depthwise 3x3 convolution, exact GELU, dense."""

from functools import partial

import jax
from jaxtyping import Array, Float

from paca_jax.ops.implementation import Implementation, always, choose
from paca_jax.ops.mlp import reference
from paca_jax.ops.mlp.reference import Drop, MlpWeights
from paca_jax.ops.pallas.cores import Core, target_core
from paca_jax.ops.residual import Residual
from paca_jax.sharding import by_images, model_shards


def residual_mlp(
    x: Float[Array, "B H W C"],
    weights: MlpWeights,
    shortcut: bool,
    residual: Residual,
    drop: Drop | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "B H W C"]:
    """Returns maps of patches plus their MLP, in the type of `x`.

    With `"pallas_tpu"` nothing between `x` and the sum leaves the chip, and the gradient keeps `x` only. It takes a branch of
    LayerNorm, MLP and drop-path scale only, no dropped hidden channels, hidden channels that the mesh does not split, and
    weights that fit into a chip's vector memory.

    Args:
        x: patches.
        weights: the parameters, in float32.
        shortcut: whether the convolution adds its own input.
        residual: the branch around the MLP.
        drop: a function of the activated hidden channels, such as dropout.
        implementation: see `paca_jax.ops.implementation`.
    """

    def refusal() -> str | None:
        if model_shards() > 1:
            return "the mesh splits hidden channels over its model axis"
        if drop is not None:
            return "hidden channels are dropped"
        from paca_jax.ops.mlp import tpu  # with Pallas, which takes long to import

        return residual.refusal() or tpu.refusal(x, weights)

    if choose("mlp", implementation, {"xla_cpu": always, "pallas_tpu": refusal}) == "pallas_tpu":
        return _kernels(x, weights, residual, shortcut, target_core())
    return reference.residual_mlp(x, weights, shortcut, residual, drop, implementation)


@partial(jax.jit, static_argnames=("shortcut", "core"), inline=True)
def _kernels(x: Array, weights: MlpWeights, residual: Residual, shortcut: bool, core: Core) -> Array:
    from paca_jax.ops.mlp import tpu

    function = partial(tpu.fused_mlp, shortcut=shortcut, core=core)
    return by_images(function, (x, residual.scales(x)), (residual.norm, weights))
