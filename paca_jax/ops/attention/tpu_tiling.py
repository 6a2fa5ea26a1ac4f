"""How patch-to-cluster attention is cut into steps of a kernel."""

import dataclasses
import math
from collections.abc import Iterator

import jax.numpy as jnp

from paca_jax.ops.attention.tpu_steps import AttentionShape
from paca_jax.ops.pallas.blocks import vector_bytes
from paca_jax.ops.pallas.patches import NORM_BYTES, PATCH_BLOCKS, PatchTiling, patch_tilings
from paca_jax.ops.pallas.registers import LANES, PACKED_SUBLANES, largest_divisor, round_up


@dataclasses.dataclass(frozen=True)
class AttentionTiling(PatchTiling):
    """The tiling of attention, in which a step takes some heads at a time.

    Attributes:
        heads: taken together, so that the sums of one run while another's products do; they divide the heads.
    """

    heads: int


_STEP_BYTES = 16 * 2**20  # of a step
_STEP_QUERIES = 4096  # patches times heads up to which images share a step: more spread its fixed cost, fewer compile faster


def spilled_by_attention(shape: AttentionShape, tiling: AttentionTiling) -> int:
    """Returns the bytes of one image that leave registers: scores, queries, patches, and gradients of keys and parameters.

    It is an upper bound. The factors are from what libtpu reports for a v4; `python -m tests.proof --only kernels` checks them.
    """
    itemsize, wide = jnp.dtype(shape.dtype).itemsize, round_up(shape.channels, LANES)
    lanes, attended = round_up(tiling.patches, LANES), round_up(shape.attended, PACKED_SUBLANES)
    scores = tiling.heads * attended * lanes * (8 + itemsize)
    queries = shape.rows * lanes * (4 + 2 * itemsize)
    patches = tiling.patches * wide * (14 + 2 * itemsize)
    copies = 2 if tiling.tiles <= 2 else 3
    sums = copies * vector_bytes((shape.rows, shape.attended), jnp.float32) + 4 * shape.rows * wide
    return scores + queries + patches + sums


def attention_tilings(shape: AttentionShape) -> Iterator[AttentionTiling]:
    """Yields ways to cut attention, those with the largest steps first."""
    itemsize = jnp.dtype(shape.dtype).itemsize
    wide, rows = round_up(shape.channels, LANES), shape.rows
    attended, attended_lanes = round_up(shape.attended, PACKED_SUBLANES), round_up(shape.attended, LANES)
    parameters = 4 * rows * wide * (itemsize + 4)
    image = attended * wide * 4 * itemsize + rows * attended_lanes * 2 * itemsize
    patch = PATCH_BLOCKS * wide * itemsize + NORM_BYTES * wide
    scratch = shape.num_heads * attended * (8 + itemsize) + rows * (8 + 2 * itemsize)
    free = _STEP_BYTES - parameters - image - rows * attended_lanes * 8
    most = max(LANES, free // (patch + scratch) // LANES * LANES)
    lanes = round_up(shape.patches, LANES)
    if shape.patches <= most:
        shared = min(_STEP_QUERIES // (shape.num_heads * lanes), (free - lanes * scratch) // (image + lanes * patch))
        images = largest_divisor(shape.images, shared)
        while images > 1:
            yield AttentionTiling(images, shape.patches, 1, shape.num_heads)
            images = largest_divisor(shape.images, images // 2)
        yield AttentionTiling(1, shape.patches, 1, shape.num_heads)
        most = max(PACKED_SUBLANES, shape.patches // 2)
    tiles = math.ceil(shape.patches / most)
    heads = shape.num_heads
    while True:
        size = round_up(math.ceil(shape.patches / tiles), PACKED_SUBLANES)
        yield AttentionTiling(1, size, math.ceil(shape.patches / size), heads)
        if size > LANES:
            tiles *= 2
        elif 4 * heads > shape.num_heads and heads > 1:  # fewer heads together spare no memory
            heads = largest_divisor(shape.num_heads, heads // 2)
        else:
            return


def gather_tilings(shape: AttentionShape) -> Iterator[PatchTiling]:
    """Yields ways to cut the gathering of clusters, those with the largest steps first."""
    return patch_tilings(shape.images, shape.patches, shape.channels, shape.dtype, shape.attended)
