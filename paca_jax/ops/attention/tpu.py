"""Residual patch-to-cluster attention in TPU kernels; neither normalized patches nor scores leave the chip."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.attention.reference import AttentionWeights, ClusterWeights
from paca_jax.ops.attention.tpu_backward import backward_kernel
from paca_jax.ops.attention.tpu_forward import forward_kernel
from paca_jax.ops.attention.tpu_gather import gather_backward_kernel, gather_kernel
from paca_jax.ops.attention.tpu_steps import AttentionShape, HeadParameters
from paca_jax.ops.attention.tpu_tiling import AttentionTiling, attention_tilings, gather_tilings
from paca_jax.ops.norm.reference import NormWeights, stack
from paca_jax.ops.pallas.cores import Core, target_core, type_refusal
from paca_jax.ops.pallas.kernel import Fit, Kernel, first_fit
from paca_jax.ops.pallas.patches import PatchTiling


class _Plan(NamedTuple):
    """How kernels are cut, and what they are compiled for. Plain attention does not gather."""

    shape: AttentionShape
    attention: AttentionTiling
    gathering: PatchTiling | None
    core: Core


class Fits(NamedTuple):
    """The tilings of the attention kernels and of those that gather clusters; None in plain attention."""

    attention: Fit[AttentionTiling]
    gathering: Fit[PatchTiling] | None


def refusal(patches: Float[Array, "B N C"], assignment: Float[Array, "B M N"] | None, num_heads: int) -> str | None:
    """Returns why the kernels do not take these arrays on the target's cores, or None if they do.

    Without an assignment, the attention is plain.
    """
    if patches.shape[1] < 2:  # Mosaic does not multiply a matrix of one row
        return "one patch only"
    if assignment is not None and assignment.shape[1] < 2:
        return "one cluster only"
    attention, gathering = fit(_shape(patches, assignment, num_heads), target_core(), gathers=assignment is not None)
    return type_refusal(patches.dtype) or attention.refusal() or (None if gathering is None else gathering.refusal())


def fused_attention(
    patches: Float[Array, "B N C"],
    assignment: Float[Array, "B M N"] | None,
    drop_path_scale: Float[Array, "B"],
    norm: NormWeights,
    clusters: ClusterWeights,
    weights: AttentionWeights,
    num_heads: int,
    core: Core,
) -> Float[Array, "B N C"]:
    """Returns `ops.residual_attention`. The backward pass needs the arguments and the clusters.

    Products multiply in the type of `patches` and sum in float32, in which norms and softmaxes are computed.

    Args:
        patches: queries come from their LayerNorm.
        assignment: of patches to clusters, from whose LayerNorm keys and values come; None for plain attention.
        drop_path_scale: in float32. It has no gradient.
        norm: of the patches, in float32.
        clusters: in float32.
        weights: in float32.
        num_heads: attention heads.
        core: the cores that the kernels are compiled for.

    Raises:
        ValueError: if the sizes do not fit (see `refusal`), or clusters have no norm.
    """
    attended_norm = norm if assignment is None else clusters.norm
    if attended_norm is None:
        raise ValueError("The kernels need clusters with a norm.")
    shape = _shape(patches, assignment, num_heads)
    attention, gathering = fit(shape, core, gathers=assignment is not None)
    plan = _Plan(shape, attention.found(), None if gathering is None else gathering.found(), core)
    parameters = _parameters(norm, attended_norm, weights, shape)
    return _attend(patches, assignment, drop_path_scale, clusters.position, parameters, plan)


def _shape(patches: Array, assignment: Array | None, num_heads: int) -> AttentionShape:
    images, count, channels = patches.shape
    attended = count if assignment is None else assignment.shape[1]
    return AttentionShape(images, count, attended, channels, num_heads, patches.dtype)


def fit(shape: AttentionShape, core: Core, *, gathers: bool) -> Fits:
    """Returns how the kernels are cut; those of plain attention do not gather."""

    def attention_kernels(tiling: AttentionTiling) -> list[Kernel]:
        return [forward_kernel(shape, tiling), backward_kernel(shape, tiling)]

    def gather_kernels(tiling: PatchTiling) -> list[Kernel]:
        return [gather_kernel(shape, tiling), gather_backward_kernel(shape, tiling)]

    gathering = first_fit(gather_tilings(shape), gather_kernels, core) if gathers else None
    return Fits(first_fit(attention_tilings(shape), attention_kernels, core), gathering)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(
    patches: Array,
    assignment: Array | None,
    drop_path_scale: Array,
    position: Array | None,
    parameters: HeadParameters,
    plan: _Plan,
) -> Array:
    return _forward(patches, assignment, drop_path_scale, position, parameters, plan)[0]


class _Saved(NamedTuple):
    """The arrays that the backward pass needs."""

    patches: Array
    assignment: Array | None
    attended: Array
    drop_path_scale: Array
    position: Array | None
    parameters: HeadParameters


def _forward(
    patches: Array,
    assignment: Array | None,
    drop_path_scale: Array,
    position: Array | None,
    parameters: HeadParameters,
    plan: _Plan,
) -> tuple[Array, _Saved]:
    attended = patches
    if assignment is not None and plan.gathering is not None:
        kernel = gather_kernel(plan.shape, plan.gathering)
        (found,) = kernel(plan.core, patches, assignment, parameters.norm)
        attended = ClusterWeights(position).place(found)
    kernel = forward_kernel(plan.shape, plan.attention)
    (y,) = kernel(plan.core, patches, attended, drop_path_scale, *_cast(parameters, patches))
    return y, _Saved(patches, assignment, attended, drop_path_scale, position, parameters)


def _backward(plan: _Plan, saved: _Saved, g: Array) -> tuple[Array, Array | None, Array, Array | None, HeadParameters]:
    patches, assignment, attended, drop_path_scale, position, parameters = saved
    kernel = backward_kernel(plan.shape, plan.attention)
    d_patches, d_attended, *sums = kernel(plan.core, patches, attended, g, drop_path_scale, *_cast(parameters, patches))
    d_parameters, d_scale = HeadParameters(*sums), jnp.zeros_like(drop_path_scale)
    if assignment is None or plan.gathering is None:
        return d_patches + d_attended, None, d_scale, None, d_parameters
    kernel = gather_backward_kernel(plan.shape, plan.gathering)
    d_patches, d_assignment, d_norm = kernel(plan.core, patches, assignment, parameters.norm, d_attended, d_patches)
    d_position = None if position is None else jnp.sum(d_attended, axis=0, dtype=position.dtype)
    return d_patches, d_assignment, d_scale, d_position, d_parameters._replace(norm=d_parameters.norm + d_norm)


_attend.defvjp(_forward, _backward)


def _cast(parameters: HeadParameters, like: Array) -> HeadParameters:
    kernels = {name: getattr(parameters, name).astype(like.dtype) for name in ("query", "key", "value", "out")}
    return parameters._replace(**kernels)


def _parameters(
    norm: NormWeights, attended_norm: NormWeights, weights: AttentionWeights, shape: AttentionShape
) -> HeadParameters:
    scale = (shape.channels // shape.num_heads) ** -0.5

    def rows(kernel: Float[Array, "D C"]) -> Float[Array, "R C"]:
        heads = kernel.reshape(shape.num_heads, -1, kernel.shape[1])
        padding = shape.head_rows - heads.shape[1]
        return jnp.pad(heads, ((0, 0), (0, padding), (0, 0))).reshape(-1, kernel.shape[1])

    return HeadParameters(
        norm=stack(norm),
        attended_norm=stack(attended_norm),
        query=rows(weights.query.T * scale),
        query_bias=rows(weights.query_bias[:, None] * scale),
        key=rows(weights.key.T),
        key_bias=rows(weights.key_bias[:, None]),
        value=rows(weights.value.T),
        value_bias=rows(weights.value_bias[:, None]),
        out=rows(weights.out),
        out_bias=weights.out_bias[None],
    )
