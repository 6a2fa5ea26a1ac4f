"""What the forward and the backward kernel of patch-to-cluster attention share.

R: rows of all heads, each head padded to whole tiles of memory.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from paca_jax.ops.norm.reference import normalize
from paca_jax.ops.pallas.common import NT, Ref, dot
from paca_jax.ops.pallas.patches import Tiling, at_tile


class Rows(NamedTuple):
    """The parameters of two norms and of attention, heads as rows: padded rows are zeros, and queries are scaled."""

    norm: Float[Array, "2 C"]
    attended_norm: Float[Array, "2 C"]
    query: Float[Array, "R C"]
    query_bias: Float[Array, "R 1"]
    key: Float[Array, "R C"]
    key_bias: Float[Array, "R 1"]
    value: Float[Array, "R C"]
    value_bias: Float[Array, "R 1"]
    out: Float[Array, "R C"]
    out_bias: Float[Array, "1 C"]


def softmax(scores: Float[Array, "M N"]) -> Float[Array, "M N"]:
    """Returns each patch's shares of the clusters."""
    weights = jnp.exp(scores - jnp.max(scores, axis=0, keepdims=True))
    return weights * (1 / jnp.sum(weights, axis=0, keepdims=True))


def head_slices(weights: Rows, num_heads: int) -> list[slice]:
    """Returns the rows of each head."""
    size = weights.query.shape[0] // num_heads
    return [slice(head * size, (head + 1) * size) for head in range(num_heads)]


def keys_and_values(z: Ref, weights: Rows, keys: Ref, values: Ref, tiling: Tiling) -> None:
    """Computes the keys and values (R, M) of a step's images, once an image."""

    def compute() -> None:
        for image in range(tiling.images):
            attended = normalize(z[image], weights.attended_norm[...])
            keys[image] = (dot(weights.key[...], attended, NT) + weights.key_bias[...]).astype(z.dtype)
            values[image] = (dot(weights.value[...], attended, NT) + weights.value_bias[...]).astype(z.dtype)

    at_tile(0, tiling, compute)


def cost(patches: Float[Array, "B N C"], clusters: Float[Array, "B M C"], num_heads: int, forwards: int) -> pl.CostEstimate:
    """Returns what a kernel computes and moves that has as many products as some forward passes, without what it pads."""
    (batch, count, channels), attended = patches.shape, clusters.shape[1]
    products = channels * (count + attended) + count * attended
    return pl.CostEstimate(
        flops=forwards * 4 * batch * channels * products,
        transcendentals=batch * num_heads * count * attended,
        bytes_accessed=forwards * (2 * patches.size + clusters.size) * patches.dtype.itemsize,
    )
