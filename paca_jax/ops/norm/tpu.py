"""LayerNorm in two TPU kernels, which read patches once and write them in the layout that the other kernels take."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from paca_jax.ops.norm.reference import NormWeights, normalize, stack
from paca_jax.ops.pallas.blocks import Ref, whole
from paca_jax.ops.pallas.cores import Core, target_core, type_refusal
from paca_jax.ops.pallas.kernel import Fit, Kernel, Step, first_fit
from paca_jax.ops.pallas.patches import PatchTiling, norm_gradient, patch_block, patch_tilings, patches_inside, spilled_by_norm


def refusal(x: Float[Array, "B N C"]) -> str | None:
    """Returns why the kernels do not take these patches on the target's cores, or None if they do."""
    return type_refusal(x.dtype) or fit(x, target_core()).refusal()


class _Plan(NamedTuple):
    """How kernels are cut, and what they are compiled for."""

    tiling: PatchTiling
    core: Core


def fused_layer_norm(x: Float[Array, "B N C"], weights: NormWeights, core: Core) -> Float[Array, "B N C"]:
    """Returns `ops.layer_norm`. The backward pass needs the arguments only.

    Args:
        x: patches.
        weights: in float32.
        core: the cores that the kernels are compiled for.

    Raises:
        ValueError: if the sizes do not fit (see `refusal`).
    """
    return _layer_norm(x, weights, _Plan(fit(x, core).found(), core))


def fit(x: Array, core: Core) -> Fit[PatchTiling]:
    """Returns how the kernels are cut for these patches."""
    batch, count, channels = x.shape

    def kernels(tiling: PatchTiling) -> list[Kernel]:
        return [_forward_kernel(x, tiling), _backward_kernel(x, tiling)]

    return first_fit(patch_tilings(batch, count, channels, x.dtype), kernels, core)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _layer_norm(x: Array, weights: NormWeights, plan: _Plan) -> Array:
    return _forward(x, weights, plan)[0]


def _forward(x: Array, weights: NormWeights, plan: _Plan) -> tuple[Array, tuple[Array, NormWeights]]:
    (y,) = _forward_kernel(x, plan.tiling)(plan.core, x, stack(weights))
    return y, (x, weights)


def _backward(plan: _Plan, saved: tuple[Array, NormWeights], dy: Array) -> tuple[Array, NormWeights]:
    x, weights = saved
    dx, d_norm = _backward_kernel(x, plan.tiling)(plan.core, x, dy, stack(weights))
    return dx, NormWeights(*d_norm)


_layer_norm.defvjp(_forward, _backward)


def _forward_kernel(x: Array, tiling: PatchTiling) -> Kernel:
    """Returns the kernel from patches and norm (2, C) to normalized patches."""
    patches, norm = patch_block(x.shape, x.dtype, tiling), whole((2, x.shape[2]), jnp.float32)
    return Kernel(
        name="layer_norm",
        body=partial(_normalize, tiling=tiling),
        grid=tiling.grid(len(x)),
        operands=[patches, norm],
        results=[patches],
        cost=_cost(x, maps=2),
        spilled=spilled_by_norm(tiling, x.shape[2]),
    )


def _backward_kernel(x: Array, tiling: PatchTiling) -> Kernel:
    """Returns the kernel from patches, the gradient of normalized patches and norm to their gradients."""
    patches, norm = patch_block(x.shape, x.dtype, tiling), whole((2, x.shape[2]), jnp.float32)
    return Kernel(
        name="layer_norm_backward",
        body=partial(_normalize_backward, num_patches=x.shape[1], tiling=tiling),
        grid=tiling.grid(len(x)),
        operands=[patches, patches, norm],
        results=[patches],
        sums=[norm.array],
        cost=_cost(x, maps=3),
        spilled=spilled_by_norm(tiling, x.shape[2]),
    )


def _cost(x: Array, maps: int) -> pl.CostEstimate:
    return pl.CostEstimate(flops=0, transcendentals=0, bytes_accessed=maps * x.size * x.dtype.itemsize)


def _normalize(step: Step, x: Ref, norm: Ref, y: Ref, *, tiling: PatchTiling) -> None:
    for image in range(tiling.images):
        y[image] = normalize(x[image], norm[...])


def _normalize_backward(
    step: Step, x: Ref, dy: Ref, norm: Ref, dx: Ref, d_norm: Ref, *, num_patches: int, tiling: PatchTiling
) -> None:
    for image in range(tiling.images):
        patches, gradient = (patches_inside(ref[image], step.part, 0, num_patches) for ref in (x, dy))
        dx[image] = norm_gradient(patches, gradient.astype(jnp.float32), norm, d_norm).astype(dx.dtype)
