"""LayerNorm over channels."""

from functools import partial

import jax
from jaxtyping import Array, Float

from paca_jax.ops.implementation import Implementation, Refusals, always, choose, kernel_interpreter
from paca_jax.ops.norm import reference
from paca_jax.ops.norm.reference import NormWeights
from paca_jax.ops.pallas.cores import Core, target_core
from paca_jax.sharding import by_images, model_shards


def layer_norm(
    x: Float[Array, "B *S C"], weights: NormWeights, implementation: Implementation | None = None
) -> Float[Array, "B *S C"]:
    """Returns `x` with mean 0 and variance 1 over the channels, scaled and shifted, in its type; it reduces in float32.

    `"xla_cpu"` has a gradient that is written out, in reverse mode only. `"pallas_tpu"` are two kernels, for patches that the
    mesh does not split over its `model` axis; `"pallas_gpu"` is one, for the gradient.
    """
    patches = x.reshape(x.shape[0], -1, x.shape[-1])

    def refusal() -> str | None:
        from paca_jax.ops.norm import tpu  # with Pallas, which takes long to import

        return "the mesh has a model axis" if model_shards() > 1 else tpu.refusal(patches)

    def gpu_refusal() -> str | None:
        from paca_jax.ops.norm import gpu  # with Pallas, which takes long to import

        return "the mesh has a model axis" if model_shards() > 1 else gpu.refusal(patches)

    implementations: Refusals = {"xla_cpu": always, "pallas_tpu": refusal, "pallas_gpu": gpu_refusal}
    chosen = choose("layer norm", implementation, implementations)
    if chosen == "pallas_tpu":
        return _kernels(patches, weights, target_core()).reshape(x.shape)
    if chosen == "pallas_gpu":
        return _with_kernel(patches, weights, bool(kernel_interpreter())).reshape(x.shape)
    return (reference.layer_norm_for_cpus if chosen == "xla_cpu" else reference.layer_norm)(x, weights)


@partial(jax.jit, static_argnames="core", inline=True)
def _kernels(x: Array, weights: NormWeights, core: Core) -> Array:
    from paca_jax.ops.norm import tpu

    return by_images(partial(tpu.fused_layer_norm, core=core), (x,), (weights,))


@partial(jax.jit, static_argnames="interpret", inline=True)
def _with_kernel(x: Array, weights: NormWeights, interpret: bool) -> Array:
    from paca_jax.ops.norm import gpu

    return by_images(partial(gpu.layer_norm_with_kernel, interpret=interpret), (x,), (weights,))
