"""Steps that the forward and the backward kernel of convolution clustering have in common.

A step holds normalized maps in scratch memory with zeros around them (see `pallas.rows`), and works on them in rounds of a
loop. A round of the convolution takes strips, whose sums stay in vector registers: some rows of eight columns of at most 128
channels. A round of the dense layers takes whole rows of one or several images.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax.ops.clustering.tpu_tiling import ClusteringTiling
from paca_jax.ops.norm.reference import normalize
from paca_jax.ops.pallas.blocks import Block, Ref, whole
from paca_jax.ops.pallas.registers import LANES, SUBLANES
from paca_jax.ops.pallas.rows import clear_edges, map_scratch, row_specs, weighted_sum

BIASES = 2  # rows of the vectors after the taps: the convolution's bias, the first dense layer's bias
SINGLE_BUFFER = pl.Buffered(1)  # for blocks that are too large to be double-buffered
Index = int | Array

normalize_rows = jax.vmap(normalize, (0, None))


def clustering_cost(tiling: ClusteringTiling, channels: int, clusters: int, itemsize: int, forwards: int) -> pl.CostEstimate:
    """Returns the cost of a kernel with the products of so many forward passes, without padding."""
    patches, window = tiling.batch * tiling.image_patches, (2 * tiling.reach + 1) ** 2
    return pl.CostEstimate(
        flops=forwards * 2 * patches * channels * (window + channels + clusters),
        transcendentals=forwards * 2 * patches * channels,
        bytes_accessed=forwards * patches * (channels + clusters) * itemsize,
    )


def map_blocks(tiling: ClusteringTiling, channels: int, dtype: DTypeLike, halo: int) -> list[Block]:
    """Returns the blocks of a step's maps: its own rows and, if images are cut, `halo` rows above and below."""
    maps = jax.ShapeDtypeStruct((tiling.batch * tiling.chunks * tiling.rows, tiling.width, channels), dtype)
    return [Block(maps, spec) for spec in row_specs(tiling, (1, *maps.shape[1:]), halo, SINGLE_BUFFER)]


def assignment_block(tiling: ClusteringTiling, clusters: int, dtype: DTypeLike, **options: Any) -> Block:
    """Returns the block of the assignments (B, M, N) of a step that sees whole images."""
    shape = (tiling.batch, clusters, tiling.image_patches)
    spec = pl.BlockSpec((tiling.images, *shape[1:]), lambda image, chunk: (image, 0, 0), **options)
    return Block(jax.ShapeDtypeStruct(shape, dtype), spec)


def weight_blocks(tiling: ClusteringTiling, channels: int, clusters: int, dtype: DTypeLike) -> list[Block]:
    """Returns the blocks of norm (2, C), vectors (taps and biases: V, C), and both dense kernels (C, C) and (C, M)."""
    taps = (2 * tiling.reach + 1) ** 2
    vectors = (whole((rows, channels), jnp.float32) for rows in (2, taps + BIASES))
    return [*vectors, *(whole((channels, columns), dtype) for columns in (channels, clusters))]


def channel_slices(channels: int) -> list[slice]:
    """Returns the channels of each tile, as many as a vector register is wide."""
    return [slice(first, min(first + LANES, channels)) for first in range(0, channels, LANES)]


def tiled_map_scratch(tiling: ClusteringTiling, edge: int, channels: int) -> Any:
    """Returns scratch memory for maps with `edge` rows above and below a step's own, one tile of channels after the other.

    Only columns of one tile lie side by side, as reads that start at any column require.
    """
    return map_scratch(tiling, edge, min(channels, LANES), (len(channel_slices(channels)),))


def filtered_scratch(tiling: ClusteringTiling, more: int, channels: int) -> Any:
    """Returns scratch memory for filtered maps, with `more` rows above and below a step's own."""
    return pltpu.VMEM((tiling.images, tiling.rows + 2 * more, tiling.columns, channels), jnp.float32)


def logit_scratch(tiling: ClusteringTiling, clusters: int) -> Any:
    """Returns scratch memory for the logits of a step that sees whole images, or their gradients, patch by patch."""
    return pltpu.VMEM((tiling.images, tiling.rows * tiling.width, clusters), jnp.float32)


def for_rounds(tiling: ClusteringTiling, work: Callable[[Index, Index], None]) -> None:
    """Calls `work` with the first image and the first row of every round of the dense layers."""
    images, rows = tiling.round
    parts = tiling.rows // rows

    def some(part: Array, carry: None) -> None:
        work(part // parts * images, part % parts * rows)

    jax.lax.fori_loop(0, tiling.images // images * parts, some, None)


def for_strips(
    tiling: ClusteringTiling, rows: int, strip_rows: int, channels: int, work: Callable[[Index, Index, Index, slice], None]
) -> None:
    """Calls `work` with the image, the first row, the first column and the channels of every strip of so many rows."""
    down, right = rows // strip_rows, tiling.columns // tiling.round_columns

    def some(part: Array, carry: None) -> None:
        image, row, first = part // (down * right), part // right % down * strip_rows, part % right * tiling.round_columns
        for tile in channel_slices(channels):
            for column in range(0, tiling.round_columns, SUBLANES):
                work(image, row, pl.multiple_of(first + column, SUBLANES) if right > 1 else column, tile)

    jax.lax.fori_loop(0, tiling.images * down * right, some, None)


def round_rows(tiling: ClusteringTiling, image: Index, row: Index) -> Any:
    """Returns the slice of a step's block that holds the rows of a round."""
    images, rows = tiling.round
    return pl.ds(image * tiling.rows + row, images * rows)


def rows_inside(tiling: ClusteringTiling, value: Float[Array, "I R W C"], chunk: Array, row: Index) -> Float[Array, "I R W C"]:
    """Returns rows, with zeros for those outside the image. The first is row `row` of the step at `chunk`."""
    if tiling.chunks * tiling.rows == tiling.height and tiling.chunks == 1:
        return value
    rows = chunk * tiling.rows + row + jax.lax.broadcasted_iota(jnp.int32, value.shape, 1)
    return jnp.where((rows >= 0) & (rows < tiling.height), value, 0)


def store_rows(maps: Ref, image: Index, row: Index, value: Float[Array, "I R W C"]) -> None:
    """Stores some rows of maps, the first as row `row` of the scratch memory."""
    images, rows, columns, channels = value.shape
    for tile, part in enumerate(channel_slices(channels)):
        own = pl.ds(row, rows), slice(SUBLANES, SUBLANES + columns), slice(0, part.stop - part.start)
        maps[tile, pl.ds(image, images), *own] = value[..., part]


def store_normal(tiling: ClusteringTiling, blocks: Sequence[Ref], norm: Ref, maps: Ref, edge: int, chunk: Array) -> None:
    """Stores a step's normalized patches with zeros around them, and `edge` of the rows above and below."""
    clear_edges(tiling, maps, edge, row_by_row=True)

    def store(value: Float[Array, "I R W C"], image: Index, row: Index) -> None:
        normal = normalize_rows(value.reshape(-1, *value.shape[2:]).astype(jnp.float32), norm[...])
        store_rows(maps, image, row + edge, rows_inside(tiling, normal.reshape(value.shape), chunk, row))

    def store_own(image: Index, row: Index) -> None:
        own = blocks[0][round_rows(tiling, image, row)]
        store(own.reshape(*tiling.round, *own.shape[1:]), image, row)

    for_rounds(tiling, store_own)
    if tiling.chunks > 1 and edge:
        store(blocks[1][-edge:][None], 0, -edge)
        store(blocks[2][:edge][None], 0, tiling.rows)


def store_filtered(tiling: ClusteringTiling, maps: Ref, edge: int, vectors: Ref, filtered: Ref, more: int) -> None:
    """Stores the convolution of normalized maps plus its bias, also for `more` rows above and below."""
    channels = filtered.shape[-1]
    bias = len(vectors) - BIASES

    def strips(first: int, rows: int, strip_rows: int) -> None:
        def store(image: Index, row: Index, column: Index, part: slice) -> None:
            seen = load_windows(tiling, maps, image, first + row + edge - tiling.reach, strip_rows, column, part)
            taps = [vectors[tap : tap + 1, part] for tap in range(bias)]
            found = weighted_windows(seen, taps) + vectors[bias : bias + 1, part]
            filtered[image, pl.ds(first + row + more, strip_rows), pl.ds(column, SUBLANES), part] = found

        for_strips(tiling, rows, strip_rows, channels, store)

    strips(0, tiling.rows, tiling.strip_rows)
    if more:
        strips(-more, more, more)
        strips(tiling.rows, more, more)


def load_windows(
    tiling: ClusteringTiling, maps: Ref, image: Index, row: Index, strip_rows: int, column: Index, channels: slice
) -> list[Float[Array, "T S L"]]:
    """Returns the values that the windows of a strip cover, column by column of the window.

    Each column of the window has the rows of the strip and those that the window reaches above and below.

    Args:
        tiling: of the step.
        maps: memory of `tiled_map_scratch`.
        image: image of the step.
        row: row of `maps` where the first window begins.
        strip_rows: rows of the strip.
        column: first column of the strip.
        channels: those of the strip.
    """
    tile, lanes = channels.start // LANES, slice(0, channels.stop - channels.start)
    rows, first = pl.ds(row, strip_rows + 2 * tiling.reach), SUBLANES - tiling.reach + column
    return [maps[tile, image, rows, pl.ds(first + right, SUBLANES), lanes] for right in range(2 * tiling.reach + 1)]


@jax.jit
def weighted_windows(seen: Sequence[Float[Array, "T S L"]], taps: Sequence[Float[Array, "1 L"]]) -> Float[Array, "R S L"]:
    """Returns the sums of the values of `load_windows`, weighted by taps that stand row by row of the window."""
    side = len(seen)
    rows = len(seen[0]) - side + 1
    places = [(down, right) for right in range(side) for down in range(side)]
    neighbors = (seen[right][down : down + rows] for down, right in places)
    return weighted_sum(neighbors, (taps[down * side + right] for down, right in places))
