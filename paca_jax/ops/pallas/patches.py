"""Passes over the patches of images: how they are cut into steps, and the blocks of a step."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from paca_jax.ops.norm.reference import normalize_backward
from paca_jax.ops.pallas.limits import SMALLEST_VMEM
from paca_jax.ops.pallas.registers import LANES, PACKED_SUBLANES, largest_divisor, round_up
from paca_jax.ops.pallas.specs import Ref

PATCH_BLOCKS = 2 * 3  # blocks of patches in memory: the input, its gradient and the output, each double-buffered
NORM_BYTES = 4 * 4  # per channel, for the gradient of a norm in float32
_MOST_PATCHES = 1024  # of a step


class PatchTiling(NamedTuple):
    """A step works on one tile of an image's patches, or on several images that have one tile.

    Attributes:
        images: of a step; they divide the batch.
        patches: of a tile.
        tiles: of an image; the last one may be filled in part.
    """

    images: int
    patches: int
    tiles: int


def tile_patches(patches: Float[Array, "B N C"], clusters: int = 0) -> PatchTiling | None:
    """Returns how a pass over patches, and their assignment to clusters, is cut; None if no step fits into memory."""
    (batch, count, channels), itemsize = patches.shape, patches.dtype.itemsize
    wide, assigned = round_up(channels, LANES), round_up(clusters, PACKED_SUBLANES)
    patch = (PATCH_BLOCKS * wide + 4 * assigned) * itemsize + NORM_BYTES * wide
    free = SMALLEST_VMEM - SMALLEST_VMEM // 4 - 4 * assigned * wide * itemsize
    most = min(_MOST_PATCHES, free // patch // LANES * LANES)
    if most < LANES:
        return None
    if count > most:
        size = round_up(math.ceil(count / math.ceil(count / most)), LANES if clusters else PACKED_SUBLANES)
        return PatchTiling(1, size, math.ceil(count / size))
    return PatchTiling(largest_divisor(batch, most // round_up(count, LANES)), count, 1)


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


def at_tile(tile: int, tiling: PatchTiling, function: Callable[[], None]) -> None:
    """Calls the function in the steps of one tile of each image."""
    if tiling.tiles == 1:
        function()
    else:
        pl.when(pl.program_id(1) == tile)(function)


def patch_spec(patches: Float[Array, "B N C"], tiling: PatchTiling) -> pl.BlockSpec:
    """Returns the block of a step's patches."""
    return pl.BlockSpec((tiling.images, tiling.patches, patches.shape[2]), lambda image, tile: (image, tile, 0))


def image_spec(clusters: Float[Array, "B M C"] | jax.ShapeDtypeStruct, tiling: PatchTiling) -> pl.BlockSpec:
    """Returns the block of the clusters of a step's images."""
    return pl.BlockSpec((tiling.images, *clusters.shape[1:]), lambda image, tile: (image, 0, 0))
