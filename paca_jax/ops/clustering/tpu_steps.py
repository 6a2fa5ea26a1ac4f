"""What the forward and the backward kernel of convolution clustering share.

A step holds normalized maps in scratch memory with a gap of zeros around them, so that what a window sees are plain reads,
shifted by rows and columns. A strip, some rows of eight columns of at most 128 channels, keeps its sums in vector registers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.clustering.tpu_tiling import SUBLANES, Tiling
from paca_jax.ops.norm.reference import normalize
from paca_jax.ops.pallas.common import LANES, Ref

BIASES = 2  # rows of the vectors after the taps: the convolution's bias, the first dense layer's bias
MEMORY = 64 * 2**20  # bytes of a core's vector memory that a step may take
ONCE = pl.Buffered(1)  # for blocks whose next one does not fit beside them
Line = int | Array

normalize_lines = jax.vmap(normalize, (0, None))


def cost(tiling: Tiling, channels: int, clusters: int, itemsize: int, forwards: int) -> pl.CostEstimate:
    """Returns what a kernel computes and moves that has as many products as some forward passes, without what it pads."""
    patches, window = tiling.batch * tiling.height * tiling.width, (2 * tiling.reach + 1) ** 2
    return pl.CostEstimate(
        flops=forwards * 2 * patches * channels * (window + channels + clusters),
        transcendentals=forwards * 2 * patches * channels,
        bytes_accessed=forwards * patches * (channels + clusters) * itemsize,
    )


def line_specs(tiling: Tiling, channels: int, halo: int) -> list[pl.BlockSpec]:
    """Returns the blocks of a step: its own rows of maps, and `halo` above and below where it does not see whole images."""
    halos = tiling.rows // halo
    last = tiling.grid[0] * tiling.chunks * halos - 1

    def own(image: Array, chunk: Array) -> tuple[Array, int, int]:
        return image * tiling.chunks + chunk, 0, 0

    def above(image: Array, chunk: Array) -> tuple[Array, int, int]:
        return jnp.maximum(own(image, chunk)[0] * halos - 1, 0), 0, 0

    def below(image: Array, chunk: Array) -> tuple[Array, int, int]:
        return jnp.minimum((own(image, chunk)[0] + 1) * halos, last), 0, 0

    specs = [pl.BlockSpec((tiling.lines, tiling.width, channels), own)]
    if tiling.chunks > 1:
        specs += [pl.BlockSpec((halo, tiling.width, channels), place, pipeline_mode=ONCE) for place in (above, below)]
    return specs


def tiles(channels: int) -> list[slice]:
    """Returns the channels of each tile: as many as a vector register is wide."""
    return [slice(first, min(first + LANES, channels)) for first in range(0, channels, LANES)]


def map_scratch(tiling: Tiling, edge: int, channels: int) -> Any:
    """Returns the scratch memory for maps with `edge` rows above and below a step's own.

    Channels lie tile by tile, for only columns of one tile lie side by side, as reads from any column want them.
    """
    maps = (tiling.images, tiling.rows + 2 * edge, tiling.columns + 2 * SUBLANES, min(channels, LANES))
    return pltpu.VMEM((len(tiles(channels)), *maps), jnp.float32)


def filtered_scratch(tiling: Tiling, more: int, channels: int) -> Any:
    """Returns the scratch memory for filtered maps, with `more` rows above and below a step's own."""
    return pltpu.VMEM((tiling.images, tiling.rows + 2 * more, tiling.columns, channels), jnp.float32)


def patch_scratch(tiling: Tiling, clusters: int) -> Any:
    """Returns the scratch memory for the logits of a step that sees whole images, or of their gradients, patch by patch."""
    return pltpu.VMEM((tiling.images, tiling.rows * tiling.width, clusters), jnp.float32)


def assignment_spec(tiling: Tiling, clusters: int, **options: Any) -> pl.BlockSpec:
    """Returns the block of a step that sees whole images: their assignments."""
    return pl.BlockSpec((tiling.images, clusters, tiling.patches), lambda image, chunk: (image, 0, 0), **options)


def clear_edges(tiling: Tiling, maps: Ref, edge: int) -> None:
    """Writes the zeros around the maps that no step writes over."""
    *most, rows, columns, lanes = maps.shape
    last = SUBLANES + tiling.width // SUBLANES * SUBLANES

    def clear(row: Array, carry: None) -> None:
        for part in (slice(0, SUBLANES), slice(last, columns)):
            maps[:, :, pl.ds(row, 1), part] = jnp.zeros((*most, 1, part.stop - part.start, lanes))

    jax.lax.fori_loop(0, rows, clear, None)
    if tiling.chunks == 1 and edge:
        for first in (0, rows - edge):
            maps[:, :, first : first + edge] = jnp.zeros((*most, edge, columns, lanes))


def store_maps(maps: Ref, image: Line, row: Line, value: Float[Array, "I R W C"]) -> None:
    """Stores some rows of maps, the first as row `row` of the scratch memory."""
    images, rows, columns, channels = value.shape
    for tile, part in enumerate(tiles(channels)):
        own = pl.ds(row, rows), slice(SUBLANES, SUBLANES + columns), slice(0, part.stop - part.start)
        maps[tile, pl.ds(image, images), *own] = value[..., part]


def for_rounds(tiling: Tiling, work: Callable[[Line, Line], None]) -> None:
    """Calls `work` with the first image and the first row of every round of a step."""
    images, rows = tiling.round
    parts = tiling.rows // rows

    def some(part: Array, carry: None) -> None:
        work(part // parts * images, part % parts * rows)

    jax.lax.fori_loop(0, tiling.images // images * parts, some, None)


def for_strips(tiling: Tiling, rows: int, size: int, channels: int, work: Callable[[Line, Line, Line, slice], None]) -> None:
    """Calls `work` with the image, the first row, the first column and the channels of every strip of so many of the rows."""
    down, right = rows // size, tiling.columns // tiling.round_columns

    def some(part: Array, carry: None) -> None:
        image, row, first = part // (down * right), part // right % down * size, part % right * tiling.round_columns
        for tile in tiles(channels):
            for column in range(0, tiling.round_columns, SUBLANES):
                work(image, row, pl.multiple_of(first + column, SUBLANES) if right > 1 else column, tile)

    jax.lax.fori_loop(0, tiling.images * down * right, some, None)


def own_lines(tiling: Tiling, image: Line, row: Line) -> Any:
    """Returns where a round's rows lie in a step's block."""
    images, rows = tiling.round
    return pl.ds(image * tiling.rows + row, images * rows)


def lines(tiling: Tiling, ref: Ref, image: Line, row: Line) -> Float[Array, "I R W C"]:
    """Returns a round's rows of a step's block."""
    own = ref[own_lines(tiling, image, row)]
    return own.reshape(*tiling.round, *own.shape[1:])


def inside(tiling: Tiling, value: Float[Array, "I R W C"], chunk: Array, row: Line) -> Float[Array, "I R W C"]:
    """Returns rows, with zeros for those that lie outside the image; the first is row `row` of the step at `chunk`."""
    if tiling.chunks * tiling.rows == tiling.height and tiling.chunks == 1:
        return value
    rows = chunk * tiling.rows + row + jax.lax.broadcasted_iota(jnp.int32, value.shape, 1)
    return jnp.where((rows >= 0) & (rows < tiling.height), value, 0)


def store_normal(tiling: Tiling, refs: Sequence[Ref], norm: Ref, maps: Ref, edge: int, chunk: Array) -> None:
    """Stores a step's patches, normalized, and the zeros around them; of the rows above and below, `edge` are stored."""
    clear_edges(tiling, maps, edge)

    def store(value: Float[Array, "I R W C"], image: Line, row: Line) -> None:
        normal = normalize_lines(value.reshape(-1, *value.shape[2:]).astype(jnp.float32), norm[...])
        store_maps(maps, image, row + edge, inside(tiling, normal.reshape(value.shape), chunk, row))

    for_rounds(tiling, lambda image, row: store(lines(tiling, refs[0], image, row), image, row))
    if tiling.chunks > 1 and edge:
        store(refs[1][-edge:][None], 0, -edge)
        store(refs[2][:edge][None], 0, tiling.rows)


def store_filtered(tiling: Tiling, maps: Ref, edge: int, vectors: Ref, filtered: Ref, more: int) -> None:
    """Stores the convolution of normalized maps and its bias, for `more` rows above and below, too."""
    channels = filtered.shape[-1]
    bias = len(vectors) - BIASES

    def strips(first: int, rows: int, size: int) -> None:
        def store(image: Line, row: Line, column: Line, part: slice) -> None:
            seen = windows(tiling, maps, image, first + row + edge - tiling.reach, size, column, part)
            found = weighted(seen, [vectors[tap : tap + 1, part] for tap in range(bias)]) + vectors[bias : bias + 1, part]
            filtered[image, pl.ds(first + row + more, size), pl.ds(column, SUBLANES), part] = found

        for_strips(tiling, rows, size, channels, store)

    strips(0, tiling.rows, tiling.strip)
    if more:
        strips(-more, more, more)
        strips(tiling.rows, more, more)


def windows(
    tiling: Tiling, maps: Ref, image: Line, row: Line, rows: int, column: Line, channels: slice
) -> list[Float[Array, "R S L"]]:
    """Returns what the windows of a strip see, column by column of the window: rows of the strip and those around them.

    Args:
        tiling: of the step.
        maps: those of `map_scratch`.
        image: image of the step.
        row: row of `maps` that the first window sees first.
        rows: rows of the strip.
        column: first column of the strip.
        channels: those of the strip.
    """
    tile, tall, lanes = channels.start // LANES, pl.ds(row, rows + 2 * tiling.reach), slice(0, channels.stop - channels.start)
    first = SUBLANES - tiling.reach + column
    return [maps[tile, image, tall, pl.ds(first + right, SUBLANES), lanes] for right in range(2 * tiling.reach + 1)]


@jax.jit
def weighted(seen: Sequence[Float[Array, "T S L"]], taps: Sequence[Float[Array, "1 L"]]) -> Float[Array, "R S L"]:
    """Returns the sums of what windows see, weighted by the taps, which are row by row of the window."""
    side = len(seen)
    rows = len(seen[0]) - side + 1
    products = [
        column[down : down + rows] * taps[down * side + right] for right, column in enumerate(seen) for down in range(side)
    ]
    return sum(products[1:], products[0])
