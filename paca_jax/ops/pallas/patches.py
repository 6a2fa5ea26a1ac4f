"""Passes over the patches of images: how they are cut into steps, and the blocks of a step."""

import dataclasses
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax.ops.norm.reference import normalize_backward
from paca_jax.ops.pallas.blocks import Block, Ref, vector_bytes
from paca_jax.ops.pallas.kernel import Step
from paca_jax.ops.pallas.registers import LANES, PACKED_SUBLANES, largest_divisor, round_up

PATCH_BLOCKS = 2 * 3  # blocks of patches in memory: the input, its gradient and the output, each double-buffered
NORM_BYTES = 4 * 4  # per channel, for the gradient of a norm in float32
_MOST_PATCHES = 1024  # of a step
_STEP_BYTES = 12 * 2**20  # of a step


@dataclasses.dataclass(frozen=True)
class PatchTiling:
    """A step works on one tile of an image's patches, or on several images that have one tile.

    Attributes:
        images: of a step; they divide the batch.
        patches: of a tile.
        tiles: of an image; the last one may be filled in part.
    """

    images: int
    patches: int
    tiles: int

    def grid(self, batch: int) -> tuple[int, int]:
        """Returns the number of steps over so many images, and over the tiles of an image."""
        return batch // self.images, self.tiles


def patch_tilings(batch: int, count: int, channels: int, dtype: DTypeLike, clusters: int = 0) -> Iterator[PatchTiling]:
    """Yields ways to cut a pass over patches (B, N, C) and their assignment (B, M, N), those with the largest steps first."""
    itemsize = jnp.dtype(dtype).itemsize
    wide, assigned = round_up(channels, LANES), round_up(clusters, PACKED_SUBLANES)
    patch = (PATCH_BLOCKS * wide + 4 * assigned) * itemsize + NORM_BYTES * wide
    free = _STEP_BYTES - 4 * assigned * wide * itemsize
    most = max(LANES, min(_MOST_PATCHES, free // patch // LANES * LANES))
    while most:
        if count > most:
            size = round_up(math.ceil(count / math.ceil(count / most)), LANES if clusters else PACKED_SUBLANES)
            yield PatchTiling(1, size, math.ceil(count / size))
        else:
            yield PatchTiling(largest_divisor(batch, most // round_up(count, LANES)), count, 1)
        most = most // 2 // LANES * LANES


def patches_inside(values: Float[Array, "A B"], tile: Array, axis: int, num_patches: int) -> Float[Array, "A B"]:
    """Returns a tile's values, whose patches lie along an axis, with zeros past the last patch of the image."""
    size = values.shape[axis]
    if num_patches % size == 0:
        return values
    place = jax.lax.broadcasted_iota(jnp.int32, tuple(size if i == axis else 1 for i in range(2)), axis)
    return jnp.where(tile * size + place < num_patches, values, 0)


def norm_gradient(x: Float[Array, "R C"], d_normal: Float[Array, "R C"], norm: Ref, d_norm: Ref) -> Float[Array, "R C"]:
    """Returns the gradient of a norm's input, and adds those of its parameters to `d_norm`."""
    dx, d_scale = normalize_backward(x, d_normal, norm[...])
    d_norm[:1] += jnp.sum(d_scale, axis=0, keepdims=True)
    d_norm[1:] += jnp.sum(d_normal, axis=0, keepdims=True)
    return dx


def spilled_by_norm(tiling: PatchTiling, channels: int) -> int:
    """Returns the bytes of one image's patches that leave registers while a norm and its gradient are computed, at most."""
    return 7 * vector_bytes((tiling.patches, channels), jnp.float32)


def at_tile(tile: int, step: Step, tiling: PatchTiling, function: Callable[[], None]) -> None:
    """Calls the function in the steps of one tile of each image."""
    if tiling.tiles == 1:
        function()
    else:
        pl.when(step.part == tile)(function)


def patch_block(shape: tuple[int, ...], dtype: DTypeLike, tiling: PatchTiling) -> Block:
    """Returns the block of a step's patches (B, N, C)."""
    spec = pl.BlockSpec((tiling.images, tiling.patches, shape[2]), lambda image, tile: (image, tile, 0))
    return Block(jax.ShapeDtypeStruct(shape, dtype), spec)


def image_block(shape: tuple[int, ...], dtype: DTypeLike, tiling: PatchTiling) -> Block:
    """Returns the block of the clusters (B, M, C) of a step's images."""
    spec = pl.BlockSpec((tiling.images, *shape[1:]), lambda image, tile: (image, 0, 0))
    return Block(jax.ShapeDtypeStruct(shape, dtype), spec)
