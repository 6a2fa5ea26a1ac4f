"""Patch-to-cluster attention in two TPU kernels, whose scores never leave the chip."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.kernels.attention_backward import backward
from paca_jax.ops.kernels.attention_forward import forward
from paca_jax.ops.kernels.attention_steps import Rows
from paca_jax.ops.kernels.attention_tiling import SUBLANES, Tiling, tile
from paca_jax.ops.kernels.common import round_up


class AttentionWeights(NamedTuple):
    """The parameters of an attention layer: four dense layers of as many channels, heads one after the other."""

    query: Float[Array, "C C"]
    query_bias: Float[Array, "C"]
    key: Float[Array, "C C"]
    key_bias: Float[Array, "C"]
    value: Float[Array, "C C"]
    value_bias: Float[Array, "C"]
    out: Float[Array, "C C"]
    out_bias: Float[Array, "C"]


def fits(patches: Float[Array, "B N C"], clusters: Float[Array, "B M C"], num_heads: int) -> bool:
    """Whether the kernels take arrays of this type and these sizes; Mosaic multiplies no matrix of one row."""
    many = min(patches.shape[1], clusters.shape[1]) > 1
    return many and patches.dtype in (jnp.bfloat16, jnp.float32) and _tiling(patches, clusters, num_heads) is not None


def fused_cluster_attention(
    patches: Float[Array, "B N C"],
    clusters: Float[Array, "B M C"],
    weights: AttentionWeights,
    num_heads: int,
    interpret: bool = False,
) -> Float[Array, "B N C"]:
    """Returns `ops.cluster_attention`; its gradient keeps `patches`, `clusters` and `weights` alone.

    Products multiply in the type of `patches` and sum in float32, in which softmaxes are taken.

    Args:
        patches: queries come from them.
        clusters: keys and values come from them.
        weights: in float32.
        num_heads: attention heads.
        interpret: whether JAX interprets the kernels, on any device, rather than compile them for a TPU.

    Raises:
        ValueError: if the sizes do not fit (see `fits`).
    """
    tiling = _tiling(patches, clusters, num_heads)
    if tiling is None:
        raise ValueError(f"No tiling fits patches {patches.shape}, clusters {clusters.shape} and {num_heads} heads.")
    return _attend(patches, clusters, _rows(weights, num_heads), num_heads, tiling, interpret)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _attend(patches: Array, clusters: Array, weights: Rows, num_heads: int, tiling: Tiling, interpret: bool) -> Array:
    return forward(patches, clusters, _cast(weights, patches), num_heads=num_heads, tiling=tiling, interpret=interpret)


def _forward(
    patches: Array, clusters: Array, weights: Rows, num_heads: int, tiling: Tiling, interpret: bool
) -> tuple[Array, tuple[Array, Array, Rows]]:
    return _attend(patches, clusters, weights, num_heads, tiling, interpret), (patches, clusters, weights)


def _backward(
    num_heads: int, tiling: Tiling, interpret: bool, kept: tuple[Array, Array, Rows], g: Array
) -> tuple[Array, Array, Rows]:
    patches, clusters, weights = kept
    cast = _cast(weights, patches)
    return backward(patches, clusters, cast, g, num_heads=num_heads, tiling=tiling, interpret=interpret)


_attend.defvjp(_forward, _backward)


def _tiling(patches: Array, clusters: Array, num_heads: int) -> Tiling | None:
    batch, count, channels = patches.shape
    head_rows = round_up(channels // num_heads, SUBLANES)
    return tile(batch, count, clusters.shape[1], channels, num_heads, head_rows, patches.dtype.itemsize)


def _cast(weights: Rows, like: Array) -> Rows:
    kernels = {name: getattr(weights, name).astype(like.dtype) for name in ("query", "key", "value", "out")}
    return weights._replace(**kernels)


def _rows(weights: AttentionWeights, num_heads: int) -> Rows:
    scale = (weights.query.shape[1] // num_heads) ** -0.5

    def rows(kernel: Float[Array, "D C"]) -> Float[Array, "R C"]:
        heads = kernel.reshape(num_heads, -1, kernel.shape[1])
        padding = round_up(heads.shape[1], SUBLANES) - heads.shape[1]
        return jnp.pad(heads, ((0, 0), (0, padding), (0, 0))).reshape(-1, kernel.shape[1])

    return Rows(
        query=rows(weights.query.T * scale),
        query_bias=rows(weights.query_bias[:, None] * scale),
        key=rows(weights.key.T),
        key_bias=rows(weights.key_bias[:, None]),
        value=rows(weights.value.T),
        value_bias=rows(weights.value_bias[:, None]),
        out=rows(weights.out),
        out_bias=weights.out_bias[None],
    )
