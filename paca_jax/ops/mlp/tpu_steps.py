"""What the forward and the backward kernel of a depthwise MLP share.

A step holds the maps of 128 hidden channels in scratch memory whose columns have a gap of zeros on both sides, so that the taps
of a 3x3 window are plain reads, shifted by a row or a column. What each strip repeats is under `jax.jit`, to be traced once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.mlp.tpu_tiling import SUBLANES, Strip, Tiling
from paca_jax.ops.pallas.common import LANES, Ref

BIAS1, BIAS2, VECTORS = 10, 9, 11  # rows of the vectors: nine taps, the convolution's bias, the first layer's bias
MEMORY = 64 * 2**20  # bytes of a core's vector memory that a step may take


def cost(tiling: Tiling, channels: int, hidden: int, itemsize: int, forwards: int) -> pl.CostEstimate:
    """Returns what a kernel computes and moves that has as many products as some forward passes, without what it pads."""
    patches = tiling.batch * tiling.height * tiling.width
    return pl.CostEstimate(
        flops=forwards * 2 * patches * hidden * (2 * channels + 9),
        transcendentals=forwards * patches * hidden,
        bytes_accessed=forwards * 2 * patches * channels * itemsize,
    )


def map_scratch(tiling: Tiling, halo: int) -> Any:
    """Returns the scratch memory for hidden maps with `halo` rows above and below a step's own."""
    shape = (tiling.images, tiling.rows + 2 * halo, tiling.columns + 2 * SUBLANES, LANES)
    return pltpu.VMEM(shape, jnp.float32)


def clear_edges(tiling: Tiling, maps: Ref, halo: int) -> None:
    """Writes the zeros around the maps that no step writes over."""
    images, rows, columns, _ = maps.shape
    last = SUBLANES + tiling.width // SUBLANES * SUBLANES
    maps[:, :, :SUBLANES] = jnp.zeros((images, rows, SUBLANES, LANES))
    maps[:, :, last:] = jnp.zeros((images, rows, columns - last, LANES))
    if tiling.chunks == 1:
        for edge in (slice(0, halo), slice(rows - halo, rows)):
            maps[:, edge] = jnp.zeros((images, halo, columns, LANES))


def store_maps(tiling: Tiling, maps: Ref, halo: int, value: Float[Array, "R L"], chunk: Array) -> None:
    """Stores hidden maps, of which `value` has those of `gather_patches`, and zeros outside the image."""
    own = slice(SUBLANES, SUBLANES + tiling.width)
    if tiling.chunks == 1:
        whole = value.reshape(tiling.images, tiling.rows, tiling.columns, LANES)
        maps[:, halo : halo + tiling.rows, own] = whole[:, :, : tiling.width]
        return
    for row in range(-halo, tiling.rows + halo):
        first = tiling.halo + row * tiling.columns
        line = tiling.inside(value[first : first + tiling.columns], chunk, row)
        maps[0, row + halo, own] = line[: tiling.width]


def taps(maps: Ref, halo: int, strip: Strip) -> list[Float[Array, "R L"]]:
    """Returns the strip's nine neighbors, row by row."""
    found = []
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            row, column = strip.row + halo + down, strip.column + SUBLANES + right
            images = slice(strip.image, strip.image + strip.images)
            window = maps[images, row : row + strip.rows, column : column + strip.columns]
            found.append(window.reshape(strip.patches, LANES))
    return found


@jax.jit
def weighted(neighbors: Sequence[Float[Array, "R L"]], weights: Sequence[Float[Array, "1 L"]]) -> Float[Array, "R L"]:
    """Sums neighbors by their weights."""
    products = [neighbor * weight for neighbor, weight in zip(neighbors, weights, strict=True)]
    return sum(products[1:], products[0])


def patch_scratch(tiling: Tiling, channels: int, dtype: Any) -> Any:
    """Returns the scratch memory for a step's patches as rows, with two rows of the image above and below where it is cut."""
    lines = tiling.images * tiling.rows + (4 if tiling.chunks > 1 else 0)
    return pltpu.VMEM((lines * tiling.columns, channels), dtype)


def packing_scratch(tiling: Tiling, channels: int) -> list[Any]:
    """Returns the scratch memory in which `gather_patches` gives patches columns on the right, and `scatter_sum` takes them."""
    shapes = ((tiling.height * tiling.width, channels), (tiling.images * tiling.rows, tiling.columns, channels))
    return [pltpu.VMEM(shape if tiling.packed else (SUBLANES, LANES), jnp.float32) for shape in shapes]


def gather_patches(tiling: Tiling, refs: Sequence[Ref], patches: Ref, packing: Sequence[Ref]) -> None:
    """Writes a step's patches as rows, zeros in the columns right of the image.

    Where a step does not see whole images, two rows of the image stand above and below.
    """
    if tiling.packed:
        image, lines = packing
        lines[:, tiling.width :] = jnp.zeros((lines.shape[0], tiling.columns - tiling.width, lines.shape[2]))
        for index in range(tiling.images):
            image[...] = refs[0][index].astype(jnp.float32)
            for row in range(tiling.rows):
                lines[index * tiling.rows + row, : tiling.width] = image[row * tiling.width : (row + 1) * tiling.width]
        patches[...] = lines[...].reshape(patches.shape).astype(patches.dtype)
        return
    if tiling.chunks > 1:
        own, above, below = refs
        refs = (above, own, below)
    patches[...] = jnp.concatenate([ref[...] for ref in refs])


def own_patches(tiling: Tiling, patches: Ref) -> Float[Array, "R C"]:
    """Returns those of `gather_patches` without the rows above and below."""
    first = tiling.halo if tiling.chunks > 1 else 0
    return patches[first : first + tiling.patches]


def scatter_sum(tiling: Tiling, value: Float[Array, "R C"], patches: Ref, total: Ref, packing: Sequence[Ref]) -> None:
    """Writes the sum of a step's patches, as they came, and of rows where their patches belong."""
    if not tiling.packed:
        total[...] = (patches[...].astype(jnp.float32) + value).astype(total.dtype)
        return
    image = packing[0]
    for index in range(tiling.images):
        for row in range(tiling.rows):
            first = (index * tiling.rows + row) * tiling.columns
            image[row * tiling.width : (row + 1) * tiling.width] = value[first : first + tiling.width]
        total[index] = (patches[index].astype(jnp.float32) + image[...]).astype(total.dtype)


def times_share(tiling: Tiling, value: Float[Array, "R C"], share: Ref) -> Float[Array, "R C"]:
    """Multiplies the rows of each of a step's images by the image's share."""
    first = pl.program_id(0) * tiling.images
    size = value.shape[0] // tiling.images
    return jnp.concatenate([value[i * size : (i + 1) * size] * share[first + i] for i in range(tiling.images)])


def patch_specs(tiling: Tiling, channels: int) -> list[pl.BlockSpec]:
    """Returns the blocks of a step: its own patches, and two rows of the image above and below where it is cut."""
    if tiling.packed:
        shape = (tiling.images, tiling.height * tiling.width, channels)
        return [pl.BlockSpec(shape, lambda image, chunk: (image, 0, 0))]
    pairs = tiling.rows // 2
    last = tiling.chunks * pairs - 1

    def own(chunk: Array) -> Array:
        return chunk

    def above(chunk: Array) -> Array:
        return jnp.maximum(chunk * pairs - 1, 0)

    def below(chunk: Array) -> Array:
        return jnp.minimum((chunk + 1) * pairs, last)

    def block(rows: int, place: Callable[[Array], Array]) -> pl.BlockSpec:
        parts = tiling.chunks * tiling.rows // rows
        shape = (tiling.images * rows * tiling.columns, channels)
        return pl.BlockSpec(shape, lambda image, chunk: (image * parts + place(chunk), 0))

    return [block(tiling.rows, own), *([block(2, above), block(2, below)] if tiling.chunks > 1 else [])]
