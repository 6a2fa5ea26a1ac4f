"""Steps that the forward and the backward kernel of patch-to-cluster attention have in common.

Axis R: the rows of all heads, each head padded to whole registers.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from paca_jax.ops.norm.reference import normalize
from paca_jax.ops.pallas.patches import PatchTiling, at_tile
from paca_jax.ops.pallas.registers import NT, dot
from paca_jax.ops.pallas.specs import Ref


class HeadParameters(NamedTuple):
    """The parameters of two norms and of attention, heads as rows. Padded rows are zeros; the queries' are scaled."""

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
    """Returns the attention weights: for each patch, a softmax over clusters."""
    powers = jnp.exp(scores - jnp.max(scores, axis=0, keepdims=True))
    return powers * (1 / jnp.sum(powers, axis=0, keepdims=True))


def head_slices(parameters: HeadParameters, num_heads: int) -> list[slice]:
    """Returns the rows of each head."""
    size = parameters.query.shape[0] // num_heads
    return [slice(head * size, (head + 1) * size) for head in range(num_heads)]


def keys_and_values(z: Ref, parameters: HeadParameters, keys: Ref, values: Ref, tiling: PatchTiling) -> None:
    """Computes the keys and values (R, M) of a step's images, once per image."""

    def compute() -> None:
        for image in range(tiling.images):
            attended = normalize(z[image], parameters.attended_norm[...])
            keys[image] = (dot(parameters.key[...], attended, NT) + parameters.key_bias[...]).astype(z.dtype)
            values[image] = (dot(parameters.value[...], attended, NT) + parameters.value_bias[...]).astype(z.dtype)

    at_tile(0, tiling, compute)


def attention_cost(
    patches: Float[Array, "B N C"], clusters: Float[Array, "B M C"], num_heads: int, forwards: int
) -> pl.CostEstimate:
    """Returns the cost of a kernel with the products of so many forward passes, without padding."""
    (batch, count, channels), attended = patches.shape, clusters.shape[1]
    products = channels * (count + attended) + count * attended
    return pl.CostEstimate(
        flops=forwards * 4 * batch * channels * products,
        transcendentals=batch * num_heads * count * attended,
        bytes_accessed=forwards * (2 * patches.size + clusters.size) * patches.dtype.itemsize,
    )
