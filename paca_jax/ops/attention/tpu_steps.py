"""Steps that the forward and the backward kernel of patch-to-cluster attention have in common.

Axis R: the rows of all heads, each head padded to whole registers.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax.ops.norm.reference import normalize
from paca_jax.ops.pallas.blocks import Block, Ref, whole
from paca_jax.ops.pallas.kernel import Step
from paca_jax.ops.pallas.patches import PatchTiling, at_tile, image_block, patch_block
from paca_jax.ops.pallas.registers import NT, PACKED_SUBLANES, dot, round_up


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


def head_groups(parameters: HeadParameters, num_heads: int, together: int) -> list[list[slice]]:
    """Returns the rows of each head, so many heads together."""
    size = parameters.query.shape[0] // num_heads
    heads = [slice(head * size, (head + 1) * size) for head in range(num_heads)]
    return [heads[first : first + together] for first in range(0, num_heads, together)]


def keys_and_values(step: Step, z: Ref, parameters: HeadParameters, keys: Ref, values: Ref, tiling: PatchTiling) -> None:
    """Computes the keys and values (R, M) of a step's images, once per image."""

    def compute() -> None:
        for image in range(tiling.images):
            attended = normalize(z[image], parameters.attended_norm[...])
            keys[image] = (dot(parameters.key[...], attended, NT) + parameters.key_bias[...]).astype(z.dtype)
            values[image] = (dot(parameters.value[...], attended, NT) + parameters.value_bias[...]).astype(z.dtype)

    at_tile(0, step, tiling, compute)


class AttentionShape(NamedTuple):
    """The sizes of an attention.

    Attributes:
        images: number of images.
        patches: of an image.
        attended: clusters of an image; in plain attention, its patches.
        channels: of a patch.
        num_heads: attention heads.
        dtype: of patches and clusters.
    """

    images: int
    patches: int
    attended: int
    channels: int
    num_heads: int
    dtype: Any

    @property
    def head_rows(self) -> int:
        """Channels of a head, padded to whole registers."""
        return round_up(self.channels // self.num_heads, PACKED_SUBLANES)

    @property
    def rows(self) -> int:
        """The rows of all heads."""
        return self.num_heads * self.head_rows

    def patch_block(self, tiling: PatchTiling) -> Block:
        """Returns the block of a step's patches."""
        return patch_block((self.images, self.patches, self.channels), self.dtype, tiling)

    def attended_block(self, tiling: PatchTiling) -> Block:
        """Returns the block of the clusters of a step's images."""
        return image_block((self.images, self.attended, self.channels), self.dtype, tiling)

    def parameter_blocks(self, kernel_dtype: DTypeLike) -> list[Block]:
        """Returns the blocks of `HeadParameters`, or of their gradients, with kernels in this type."""
        norm, kernel, bias = (2, self.channels), (self.rows, self.channels), (self.rows, 1)
        shapes = (norm, norm, *(kernel, bias) * 3, kernel, (1, self.channels))
        return [whole(shape, kernel_dtype if shape is kernel else jnp.float32) for shape in shapes]

    def cost(self, forwards: int) -> pl.CostEstimate:
        """Returns the cost of a kernel with the products of so many forward passes, without padding."""
        products = self.channels * (self.patches + self.attended) + self.patches * self.attended
        moved = self.images * (2 * self.patches + self.attended) * self.channels
        return pl.CostEstimate(
            flops=forwards * 4 * self.images * self.channels * products,
            transcendentals=self.images * self.num_heads * self.patches * self.attended,
            bytes_accessed=forwards * moved * jnp.dtype(self.dtype).itemsize,
        )
