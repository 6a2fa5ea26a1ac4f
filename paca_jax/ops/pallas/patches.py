"""Kernels that pass over the patches of images: how they are cut into steps, and the blocks of a step."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from paca_jax.ops.norm.reference import normalize_backward
from paca_jax.ops.pallas.common import LANES, Ref, largest_divisor, round_up

SUBLANES = 16  # of the narrowest type
MEMORY = 16 * 2**20  # bytes that a step may take; the least that any kind of core has and gives
BLOCKS = 2 * 3  # of patches in a step's memory: what comes, its gradient and the result's, each beside the next step's
NORM = 4 * 4  # bytes of a channel while its norm's gradient is taken, in float32
_STEP = 1024  # patches that share a step


class Tiling(NamedTuple):
    """A step works on one tile of an image's patches, or on several images that have one tile.

    Attributes:
        images: of a step; they divide the batch.
        patches: of a tile.
        tiles: of an image; the last one may be filled in part.
    """

    images: int
    patches: int
    tiles: int


def tile_patches(patches: Float[Array, "B N C"], clusters: int = 0) -> Tiling | None:
    """Returns how a pass over patches and shares of so many clusters is cut, or None where one step cannot hold them."""
    (batch, count, channels), itemsize = patches.shape, patches.dtype.itemsize
    wide, shares = round_up(channels, LANES), round_up(clusters, SUBLANES)
    patch = (BLOCKS * wide + 4 * shares) * itemsize + NORM * wide
    most = min(_STEP, (MEMORY - MEMORY // 4 - 4 * shares * wide * itemsize) // patch // LANES * LANES)
    if most < LANES:
        return None
    if count > most:
        size = round_up(math.ceil(count / math.ceil(count / most)), LANES if clusters else SUBLANES)
        return Tiling(1, size, math.ceil(count / size))
    return Tiling(largest_divisor(batch, most // round_up(count, LANES)), count, 1)


def inside(values: Float[Array, "A B"], tile: Array, axis: int, num_patches: int) -> Float[Array, "A B"]:
    """Returns values with zeros for what a tile, whose patches lie along an axis, has past the last patch."""
    size = values.shape[axis]
    if num_patches % size == 0:
        return values
    place = jax.lax.broadcasted_iota(jnp.int32, tuple(size if i == axis else 1 for i in range(2)), axis)
    return jnp.where(tile * size + place < num_patches, values, 0)


def norm_gradient(x: Float[Array, "R C"], d_normal: Float[Array, "R C"], norm: Ref, d_norm: Ref) -> Float[Array, "R C"]:
    """Returns the gradient of rows, and adds those of the norm."""
    dx, d_scale = normalize_backward(x, d_normal, norm[...])
    d_norm[:1] += jnp.sum(d_scale, axis=0, keepdims=True)
    d_norm[1:] += jnp.sum(d_normal, axis=0, keepdims=True)
    return dx


def at_tile(tile: int, tiling: Tiling, function: Callable[[], None]) -> None:
    """Calls the function in the steps of one tile of each image."""
    if tiling.tiles == 1:
        function()
    else:
        pl.when(pl.program_id(1) == tile)(function)


def patch_spec(patches: Float[Array, "B N C"], tiling: Tiling) -> pl.BlockSpec:
    """Returns how the patches of a step are cut out."""
    return pl.BlockSpec((tiling.images, tiling.patches, patches.shape[2]), lambda image, tile: (image, tile, 0))


def image_spec(clusters: Float[Array, "B M C"] | jax.ShapeDtypeStruct, tiling: Tiling) -> pl.BlockSpec:
    """Returns how the clusters of a step's images are cut out."""
    return pl.BlockSpec((tiling.images, *clusters.shape[1:]), lambda image, tile: (image, 0, 0))
