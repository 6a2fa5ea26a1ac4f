"""Residual patch-to-cluster attention in TPU kernels; neither normalized patches nor scores leave the chip."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.attention.reference import AttentionWeights, ClusterWeights
from paca_jax.ops.attention.tpu_backward import backward
from paca_jax.ops.attention.tpu_forward import forward
from paca_jax.ops.attention.tpu_gather import gather, gather_backward
from paca_jax.ops.attention.tpu_steps import HeadParameters
from paca_jax.ops.attention.tpu_tiling import tile_attention
from paca_jax.ops.implementation import Interpreter
from paca_jax.ops.norm.reference import NormWeights, stack
from paca_jax.ops.pallas.limits import type_refusal
from paca_jax.ops.pallas.patches import PatchTiling, tile_patches
from paca_jax.ops.pallas.registers import PACKED_SUBLANES, round_up


class _Plan(NamedTuple):
    """The options that kernels are compiled for. Plain attention does not gather."""

    num_heads: int
    attention: PatchTiling
    gathering: PatchTiling | None
    interpret: Interpreter

    @property
    def attention_options(self) -> dict[str, Any]:
        """The options of the attention kernels."""
        return {"num_heads": self.num_heads, "tiling": self.attention, "interpret": self.interpret}


def refusal(patches: Float[Array, "B N C"], assignment: Float[Array, "B M N"] | None, num_heads: int) -> str | None:
    """Returns why the kernels do not take these arrays (no assignment: plain attention), or None if they do."""
    count, channels = patches.shape[1:]
    tokens = count if assignment is None else assignment.shape[1]
    if min(count, tokens) < 2:  # Mosaic does not multiply a matrix of one row
        return "one patch only" if count < 2 else "one cluster only"
    if _plan(patches, assignment, num_heads) is None:
        attended = "patches" if assignment is None else "clusters"
        return f"{tokens} {attended} of {channels} channels do not fit into the chip's vector memory"
    return type_refusal(patches.dtype)


def fused_attention(
    patches: Float[Array, "B N C"],
    assignment: Float[Array, "B M N"] | None,
    drop_path_scale: Float[Array, "B"],
    norm: NormWeights,
    clusters: ClusterWeights,
    weights: AttentionWeights,
    num_heads: int,
    interpret: Interpreter = False,
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
        interpret: how `pallas_call` interprets the kernels on any device; False compiles them for a TPU.

    Raises:
        ValueError: if the sizes do not fit (see `refusal`), or clusters have no norm.
    """
    plan = _plan(patches, assignment, num_heads, interpret)
    tokens_norm = norm if assignment is None else clusters.norm
    if plan is None or tokens_norm is None:
        shape = assignment if assignment is None else assignment.shape
        raise ValueError(
            f"No kernels fit patches {patches.shape}, their assignment {shape}, {num_heads} heads and the norm {tokens_norm}."
        )
    parameters = _parameters(norm, tokens_norm, weights, num_heads)
    return _attend(patches, assignment, drop_path_scale, clusters.position, parameters, plan)


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
    tokens: Array
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
    tokens = patches
    if assignment is not None and plan.gathering is not None:
        tokens = gather(patches, assignment, parameters.norm, tiling=plan.gathering, interpret=plan.interpret)
        tokens = ClusterWeights(position).place(tokens)
    y = forward(patches, tokens, drop_path_scale, _cast(parameters, patches), **plan.attention_options)
    return y, _Saved(patches, assignment, tokens, drop_path_scale, position, parameters)


def _backward(plan: _Plan, saved: _Saved, g: Array) -> tuple[Array, Array | None, Array, Array | None, HeadParameters]:
    patches, assignment, tokens, drop_path_scale, position, parameters = saved
    d_patches, d_tokens, d_parameters = backward(
        patches, tokens, drop_path_scale, _cast(parameters, patches), g, **plan.attention_options
    )
    d_scale = jnp.zeros_like(drop_path_scale)
    if assignment is None or plan.gathering is None:
        return d_patches + d_tokens, None, d_scale, None, d_parameters
    d_patches, d_assignment, d_norm = gather_backward(
        patches, assignment, parameters.norm, d_tokens, d_patches, tiling=plan.gathering, interpret=plan.interpret
    )
    d_position = None if position is None else jnp.sum(d_tokens, axis=0, dtype=position.dtype)
    return d_patches, d_assignment, d_scale, d_position, d_parameters._replace(norm=d_parameters.norm + d_norm)


_attend.defvjp(_forward, _backward)


def _plan(patches: Array, assignment: Array | None, num_heads: int, interpret: Interpreter = False) -> _Plan | None:
    """Returns how kernels are cut, or None if the sizes do not fit."""
    (batch, count, channels), itemsize = patches.shape, patches.dtype.itemsize
    tokens = count if assignment is None else assignment.shape[1]
    head_rows = round_up(channels // num_heads, PACKED_SUBLANES)
    attention = tile_attention(batch, count, tokens, channels, num_heads, head_rows, itemsize)
    gathering = None if assignment is None else tile_patches(patches, tokens)
    if attention is None or min(count, tokens) < 2 or (assignment is not None and gathering is None):
        return None
    return _Plan(num_heads, attention, gathering, interpret)


def _cast(parameters: HeadParameters, like: Array) -> HeadParameters:
    kernels = {name: getattr(parameters, name).astype(like.dtype) for name in ("query", "key", "value", "out")}
    return parameters._replace(**kernels)


def _parameters(norm: NormWeights, attended_norm: NormWeights, weights: AttentionWeights, num_heads: int) -> HeadParameters:
    scale = (weights.query.shape[1] // num_heads) ** -0.5

    def rows(kernel: Float[Array, "D C"]) -> Float[Array, "R C"]:
        heads = kernel.reshape(num_heads, -1, kernel.shape[1])
        padding = round_up(heads.shape[1], PACKED_SUBLANES) - heads.shape[1]
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
