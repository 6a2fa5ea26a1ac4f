"""Steps that the forward and the backward kernel of a depthwise MLP have in common.

A step holds the maps of 128 hidden channels at a time, with zeros around them (see `pallas.rows`). What every strip repeats is
under `jax.jit`, so that it is traced once.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax.ops.mlp.tpu_tiling import HALO, MlpTiling, Strip
from paca_jax.ops.pallas.blocks import Block, Ref
from paca_jax.ops.pallas.kernel import Step
from paca_jax.ops.pallas.registers import LANES, SUBLANES
from paca_jax.ops.pallas.rows import row_specs, weighted_sum

TAPS, BIAS2, BIAS1, VECTORS = 9, 9, 10, 11  # rows of the vectors: taps, the convolution's bias, the first layer's bias

weighted_neighbors = jax.jit(weighted_sum)


def mlp_cost(tiling: MlpTiling, channels: int, hidden: int, itemsize: int, forwards: int) -> pl.CostEstimate:
    """Returns the cost of a kernel with the products of so many forward passes, without padding."""
    patches = tiling.batch * tiling.image_patches
    return pl.CostEstimate(
        flops=forwards * 2 * patches * hidden * (2 * channels + TAPS),
        transcendentals=forwards * patches * hidden,
        bytes_accessed=forwards * 2 * patches * channels * itemsize,
    )


def store_hidden(tiling: MlpTiling, maps: Ref, edge: int, value: Float[Array, "R L"], chunk: Array) -> None:
    """Stores the hidden maps of the patches of `load_patches`, and zeros outside the image."""
    own = slice(SUBLANES, SUBLANES + tiling.width)
    if tiling.chunks == 1:
        hidden = value.reshape(tiling.images, tiling.rows, tiling.columns, LANES)
        maps[:, edge : edge + tiling.rows, own] = hidden[:, :, : tiling.width]
        return
    for row in range(-edge, tiling.rows + edge):
        first = tiling.first_patch + row * tiling.columns
        hidden = tiling.row_inside(value[first : first + tiling.columns], chunk, row)
        maps[0, row + edge, own] = hidden[: tiling.width]


def load_neighbors(maps: Ref, edge: int, strip: Strip) -> list[Float[Array, "R L"]]:
    """Returns the strip's nine neighbors, row by row of the window."""
    found = []
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            row, column = strip.row + edge + down, strip.column + SUBLANES + right
            images = slice(strip.image, strip.image + strip.images)
            window = maps[images, row : row + strip.rows, column : column + strip.columns]
            found.append(window.reshape(strip.patches, LANES))
    return found


def patch_blocks(tiling: MlpTiling, channels: int, dtype: DTypeLike) -> list[Block]:
    """Returns the blocks of a step's patches: whole images without padding, or padded rows."""
    if tiling.packed:
        shape: tuple[int, ...] = (tiling.batch, tiling.image_patches, channels)
        specs = [pl.BlockSpec((tiling.images, *shape[1:]), lambda image, chunk: (image, 0, 0))]
    else:
        shape = (tiling.batch * tiling.chunks * tiling.rows * tiling.columns, channels)
        specs = row_specs(tiling, (tiling.columns, channels), HALO)
    return [Block(jax.ShapeDtypeStruct(shape, dtype), spec) for spec in specs]


def patch_scratch(tiling: MlpTiling, channels: int, dtype: DTypeLike) -> Any:
    """Returns scratch memory for the patches of a step's rows and of those above and below."""
    return pltpu.VMEM((tiling.step_patches + 2 * tiling.first_patch, channels), jnp.dtype(dtype))


def packing_scratch(tiling: MlpTiling, channels: int) -> list[Any]:
    """Returns scratch memory for an image and for padded rows: `load_patches` pads rows in it, and `add_branch` unpads them."""
    shapes = ((tiling.image_patches, channels), (tiling.step_rows, tiling.columns, channels))
    return [pltpu.VMEM(shape if tiling.packed else (SUBLANES, LANES), jnp.float32) for shape in shapes]


def load_patches(tiling: MlpTiling, blocks: Sequence[Ref], patches: Ref, packing: Sequence[Ref]) -> None:
    """Writes the patches of a step's rows, zeros as padding, and of the rows above and below if images are cut."""
    if tiling.packed:
        image, rows = packing
        rows[:, tiling.width :] = jnp.zeros((rows.shape[0], tiling.columns - tiling.width, rows.shape[2]))
        for index in range(tiling.images):
            image[...] = blocks[0][index].astype(jnp.float32)
            for row in range(tiling.rows):
                rows[index * tiling.rows + row, : tiling.width] = image[row * tiling.width : (row + 1) * tiling.width]
        patches[...] = rows[...].reshape(patches.shape).astype(patches.dtype)
        return
    if tiling.chunks > 1:
        own, above, below = blocks
        blocks = (above, own, below)
    patches[...] = jnp.concatenate([block[...] for block in blocks])


def own_patches(tiling: MlpTiling, patches: Ref) -> Float[Array, "R C"]:
    """Returns the patches of `load_patches` without those of the rows above and below."""
    return patches[tiling.first_patch : tiling.first_patch + tiling.step_patches]


def add_branch(tiling: MlpTiling, branch: Float[Array, "R C"], patches: Ref, total: Ref, packing: Sequence[Ref]) -> None:
    """Writes the sum of a step's block of patches and a branch, which has a value for each patch of padded rows."""
    if not tiling.packed:
        total[...] = (patches[...].astype(jnp.float32) + branch).astype(total.dtype)
        return
    image = packing[0]
    for index in range(tiling.images):
        for row in range(tiling.rows):
            first = (index * tiling.rows + row) * tiling.columns
            image[row * tiling.width : (row + 1) * tiling.width] = branch[first : first + tiling.width]
        total[index] = (patches[index].astype(jnp.float32) + image[...]).astype(total.dtype)


def times_drop_path_scale(
    tiling: MlpTiling, value: Float[Array, "R C"], drop_path_scale: Ref, step: Step
) -> Float[Array, "R C"]:
    """Multiplies the patches of each of a step's images by the image's drop-path scale."""
    first = step.image * tiling.images
    size = value.shape[0] // tiling.images
    return jnp.concatenate([value[i * size : (i + 1) * size] * drop_path_scale[first + i] for i in range(tiling.images)])
