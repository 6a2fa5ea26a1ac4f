"""Residual patch-to-cluster attention in TPU kernels, whose normalized patches and whose scores never leave the chip."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.attention.reference import AttentionWeights, ClusterWeights
from paca_jax.ops.attention.tpu_backward import backward
from paca_jax.ops.attention.tpu_forward import forward
from paca_jax.ops.attention.tpu_gather import gather, gather_backward
from paca_jax.ops.attention.tpu_steps import Rows
from paca_jax.ops.attention.tpu_tiling import tile
from paca_jax.ops.norm.reference import NormWeights, stack
from paca_jax.ops.pallas.common import round_up
from paca_jax.ops.pallas.patches import SUBLANES, Tiling, tile_patches


class _Plan(NamedTuple):
    """What kernels are compiled for; no gathering in plain attention."""

    num_heads: int
    attention: Tiling
    gathering: Tiling | None
    interpret: bool

    @property
    def attention_options(self) -> dict[str, Any]:
        """Options of the kernels of attention."""
        return {"num_heads": self.num_heads, "tiling": self.attention, "interpret": self.interpret}


def fits(patches: Float[Array, "B N C"], assignment: Float[Array, "B M N"] | None, num_heads: int) -> bool:
    """Whether the kernels take patches of this type, and as many of them, of clusters (None: plain attention) and heads."""
    return patches.dtype in (jnp.bfloat16, jnp.float32) and _plan(patches, assignment, num_heads) is not None


def fused_attention(
    patches: Float[Array, "B N C"],
    assignment: Float[Array, "B M N"] | None,
    share: Float[Array, "B"],
    norm: NormWeights,
    clusters: ClusterWeights,
    weights: AttentionWeights,
    num_heads: int,
    interpret: bool = False,
) -> Float[Array, "B N C"]:
    """Returns `ops.residual_attention`; its gradient keeps the arguments and the clusters.

    Products multiply in the type of `patches` and sum in float32, in which norms and softmaxes are taken.

    Args:
        patches: queries come from their LayerNorm.
        assignment: of patches to clusters, from whose LayerNorm keys and values come; None for plain attention.
        share: factor of each image's branch, in float32; it has no gradient.
        norm: of the patches, in float32.
        clusters: in float32.
        weights: in float32.
        num_heads: attention heads.
        interpret: whether JAX interprets the kernels, on any device, rather than compile them for a TPU.

    Raises:
        ValueError: if the sizes do not fit (see `fits`), or clusters have no norm.
    """
    plan = _plan(patches, assignment, num_heads, interpret)
    tokens_norm = norm if assignment is None else clusters.norm
    if plan is None or tokens_norm is None:
        shape = assignment if assignment is None else assignment.shape
        raise ValueError(
            f"No kernels fit patches {patches.shape}, their assignment {shape}, {num_heads} heads and the norm {tokens_norm}."
        )
    return _attend(patches, assignment, share, clusters.position, _rows(norm, tokens_norm, weights, num_heads), plan)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(
    patches: Array, assignment: Array | None, share: Array, position: Array | None, weights: Rows, plan: _Plan
) -> Array:
    return _forward(patches, assignment, share, position, weights, plan)[0]


class _Kept(NamedTuple):
    """What the gradient needs."""

    patches: Array
    assignment: Array | None
    tokens: Array
    share: Array
    position: Array | None
    weights: Rows


def _forward(
    patches: Array, assignment: Array | None, share: Array, position: Array | None, weights: Rows, plan: _Plan
) -> tuple[Array, _Kept]:
    tokens = patches
    if assignment is not None and plan.gathering is not None:
        tokens = gather(patches, assignment, weights.norm, tiling=plan.gathering, interpret=plan.interpret)
        tokens = ClusterWeights(position).place(tokens)
    y = forward(patches, tokens, share, _cast(weights, patches), **plan.attention_options)
    return y, _Kept(patches, assignment, tokens, share, position, weights)


def _backward(plan: _Plan, kept: _Kept, g: Array) -> tuple[Array, Array | None, Array, Array | None, Rows]:
    patches, assignment, tokens, share, position, weights = kept
    d_patches, d_tokens, d_weights = backward(patches, tokens, share, _cast(weights, patches), g, **plan.attention_options)
    d_share = jnp.zeros_like(share)
    if assignment is None or plan.gathering is None:
        return d_patches + d_tokens, None, d_share, None, d_weights
    d_patches, d_assignment, d_norm = gather_backward(
        patches, assignment, weights.norm, d_tokens, d_patches, tiling=plan.gathering, interpret=plan.interpret
    )
    d_position = None if position is None else jnp.sum(d_tokens, axis=0, dtype=position.dtype)
    return d_patches, d_assignment, d_share, d_position, d_weights._replace(norm=d_weights.norm + d_norm)


_attend.defvjp(_forward, _backward)


def _plan(patches: Array, assignment: Array | None, num_heads: int, interpret: bool = False) -> _Plan | None:
    """Returns how kernels are cut, or None where the sizes do not fit; Mosaic multiplies no matrix of one row."""
    (batch, count, channels), itemsize = patches.shape, patches.dtype.itemsize
    tokens = count if assignment is None else assignment.shape[1]
    head_rows = round_up(channels // num_heads, SUBLANES)
    attention = tile(batch, count, tokens, channels, num_heads, head_rows, itemsize)
    gathering = None if assignment is None else tile_patches(patches, tokens)
    if attention is None or min(count, tokens) < 2 or (assignment is not None and gathering is None):
        return None
    return _Plan(num_heads, attention, gathering, interpret)


def _cast(weights: Rows, like: Array) -> Rows:
    kernels = {name: getattr(weights, name).astype(like.dtype) for name in ("query", "key", "value", "out")}
    return weights._replace(**kernels)


def _rows(norm: NormWeights, attended_norm: NormWeights, weights: AttentionWeights, num_heads: int) -> Rows:
    scale = (weights.query.shape[1] // num_heads) ** -0.5

    def rows(kernel: Float[Array, "D C"]) -> Float[Array, "R C"]:
        heads = kernel.reshape(num_heads, -1, kernel.shape[1])
        padding = round_up(heads.shape[1], SUBLANES) - heads.shape[1]
        return jnp.pad(heads, ((0, 0), (0, padding), (0, 0))).reshape(-1, kernel.shape[1])

    return Rows(
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
