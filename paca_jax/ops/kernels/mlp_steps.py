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

from paca_jax.ops.kernels.common import LANES, Ref
from paca_jax.ops.kernels.mlp_tiling import SUBLANES, Strip, Tiling

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
    """Returns the strip's nine neighbours, row by row."""
    found = []
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            row, column = strip.row + halo + down, strip.column + SUBLANES + right
            images = slice(strip.image, strip.image + strip.images)
            window = maps[images, row : row + strip.rows, column : column + strip.columns]
            found.append(window.reshape(strip.patches, LANES))
    return found


@jax.jit
def weighted(neighbours: Sequence[Float[Array, "R L"]], weights: Sequence[Float[Array, "1 L"]]) -> Float[Array, "R L"]:
    """Sums neighbours by their weights."""
    products = [neighbour * weight for neighbour, weight in zip(neighbours, weights, strict=True)]
    return sum(products[1:], products[0])


def patch_scratch(tiling: Tiling, channels: int, dtype: Any) -> list[Any]:
    """Returns the scratch memory for a step's patches as rows, and for what `gather_patches` needs between."""
    lines = tiling.images * tiling.rows + (4 if tiling.chunks > 1 else 0)
    between = (lines, tiling.columns, channels) if tiling.columns > tiling.width else (1, SUBLANES, LANES)
    return [pltpu.VMEM((lines * tiling.columns, channels), dtype), pltpu.VMEM(between, jnp.float32)]


def gather_patches(tiling: Tiling, refs: Sequence[Ref], patches: Ref, between: Ref) -> None:
    """Writes a step's patches as rows, zeros in the columns right of the image.

    Where a step does not see whole images, two rows of the image stand above and below.
    """
    if tiling.chunks > 1:
        own, above, below = refs
        refs = (above, own, below)
    if tiling.columns == tiling.width:
        patches[...] = jnp.concatenate([ref[...] for ref in refs])
        return
    full = tiling.width // SUBLANES * SUBLANES
    between[:, full:] = jnp.zeros((between.shape[0], tiling.columns - full, between.shape[2]))
    line = 0
    for ref in refs:
        maps = ref[...].reshape(-1, tiling.width, between.shape[2]).astype(jnp.float32)
        between[line : line + maps.shape[0], : tiling.width] = maps
        line += maps.shape[0]
    patches[...] = between[...].reshape(patches.shape).astype(patches.dtype)


def own_patches(tiling: Tiling, patches: Ref) -> Float[Array, "R C"]:
    """Returns those of `gather_patches` without the rows above and below."""
    first = tiling.halo if tiling.chunks > 1 else 0
    return patches[first : first + tiling.patches]


def scatter_sum(tiling: Tiling, value: Float[Array, "R C"], patches: Ref, total: Ref) -> None:
    """Writes the sum of a step's patches, as they came, and of rows where their patches belong."""
    if tiling.columns > tiling.width:
        value = value.reshape(tiling.images, tiling.rows, tiling.columns, -1)[:, :, : tiling.width]
    total[...] = (patches[...].astype(jnp.float32) + value).astype(total.dtype)


def times_share(tiling: Tiling, value: Float[Array, "R C"], share: Ref) -> Float[Array, "R C"]:
    """Multiplies the rows of each of a step's images by the image's share."""
    first = pl.program_id(0) * tiling.images
    size = value.shape[0] // tiling.images
    return jnp.concatenate([value[i * size : (i + 1) * size] * share[first + i] for i in range(tiling.images)])


def patch_specs(tiling: Tiling, channels: int) -> list[pl.BlockSpec]:
    """Returns the blocks of a step: its own patches, and two rows above and below where it does not see whole images.

    Patches are rows where images fill vector registers, else maps: that is how they lie in memory.
    """
    pairs = tiling.rows // 2
    last = tiling.chunks * pairs - 1

    def own(image: Array, chunk: Array) -> tuple[Array, Array]:
        return image, chunk

    def above(image: Array, chunk: Array) -> tuple[Array, Array]:
        return image, jnp.maximum(chunk * pairs - 1, 0)

    def below(image: Array, chunk: Array) -> tuple[Array, Array]:
        return image, jnp.minimum((chunk + 1) * pairs, last)

    def block(rows: int, place: Callable[[Array, Array], tuple[Array, Array]]) -> pl.BlockSpec:
        if tiling.columns > tiling.width:
            return pl.BlockSpec(
                (tiling.images, rows, tiling.width, channels), lambda image, chunk: (*place(image, chunk), 0, 0)
            )
        parts = tiling.chunks * tiling.rows // rows

        def index(image: Array, chunk: Array) -> tuple[Array, int]:
            image, part = place(image, chunk)
            return image * parts + part, 0

        return pl.BlockSpec((tiling.images * rows * tiling.columns, channels), index)

    return [block(tiling.rows, own), *([block(2, above), block(2, below)] if tiling.chunks > 1 else [])]
