"""Passes over the rows of maps with a window around each patch: how a step sees the rows above and below its own.

A step holds maps in scratch memory with zeros around them, so that the values that a window covers are plain reads, shifted by
rows and columns.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from paca_jax.ops.pallas.blocks import Ref
from paca_jax.ops.pallas.registers import LANES, SUBLANES, round_up


@dataclasses.dataclass(frozen=True)
class RowTiling:
    """A step works on whole images, several of them if they are small, or on some rows of one image.

    Attributes:
        batch: images, enough to fill whole steps.
        height: rows of an image.
        width: columns of an image.
        images: images of a step.
        chunks: steps of an image.
        rows: rows of each image in a step; the last step of an image may have rows below the image.
    """

    batch: int
    height: int
    width: int
    images: int
    chunks: int
    rows: int

    @property
    def columns(self) -> int:
        """Columns of an image, padded on the right to whole vector registers."""
        return round_up(self.width, SUBLANES)

    @property
    def image_patches(self) -> int:
        """Patches of an image, without padding."""
        return self.height * self.width

    @property
    def step_rows(self) -> int:
        """Rows of all images of a step."""
        return self.images * self.rows

    @property
    def blocks(self) -> int:
        """Blocks of `row_specs`: one of a step's own rows; if images are cut, also those above and below."""
        return 1 if self.chunks == 1 else 3

    @property
    def grid(self) -> tuple[int, int]:
        """Steps over images, and over the rows of an image."""
        return self.batch // self.images, self.chunks


def row_specs(
    tiling: RowTiling, row: tuple[int, ...], halo: int, pipeline_mode: pl.Buffered | None = None
) -> list[pl.BlockSpec]:
    """Returns the blocks of a step: its own rows and, if images are cut, `halo` rows above and below.

    At the top and bottom of an image, the blocks above and below hold other rows, which the kernel must replace by zeros.

    Args:
        tiling: how maps are cut.
        row: shape of one row; rows of all images lie one after the other along the array's first axis.
        halo: rows above and below; they divide the rows of a step.
        pipeline_mode: of the blocks above and below.
    """
    halos = tiling.rows // halo
    last = tiling.grid[0] * tiling.chunks * halos - 1
    rest = (0,) * (len(row) - 1)

    def own(image: Array, chunk: Array) -> tuple[Any, ...]:
        return image * tiling.chunks + chunk, *rest

    def above(image: Array, chunk: Array) -> tuple[Any, ...]:
        return jnp.maximum(own(image, chunk)[0] * halos - 1, 0), *rest

    def below(image: Array, chunk: Array) -> tuple[Any, ...]:
        return jnp.minimum((own(image, chunk)[0] + 1) * halos, last), *rest

    specs = [pl.BlockSpec((tiling.step_rows * row[0], *row[1:]), own)]
    if tiling.chunks > 1:
        shape = (halo * row[0], *row[1:])
        specs += [pl.BlockSpec(shape, place, pipeline_mode=pipeline_mode) for place in (above, below)]
    return specs


def map_scratch(tiling: RowTiling, edge: int, lanes: int = LANES, tiles: tuple[int, ...] = ()) -> Any:
    """Returns scratch memory for a step's maps: `edge` more rows above and below, a register of columns on both sides."""
    return pltpu.VMEM((*tiles, tiling.images, tiling.rows + 2 * edge, tiling.columns + 2 * SUBLANES, lanes), jnp.float32)


def clear_edges(tiling: RowTiling, maps: Ref, edge: int, *, row_by_row: bool) -> None:
    """Writes the zeros around maps that no step overwrites.

    Args:
        tiling: how maps are cut.
        maps: memory of `map_scratch`.
        edge: its rows above and below a step's own.
        row_by_row: whether a loop clears the columns at the sides, which is a shorter program, or all rows are cleared at once.
    """
    *outer, rows, columns, lanes = maps.shape
    last = SUBLANES + tiling.width // SUBLANES * SUBLANES

    def clear(row: int | Array, count: int) -> None:
        for part in (slice(0, SUBLANES), slice(last, columns)):
            maps[..., pl.ds(row, count), part, :] = jnp.zeros((*outer, count, part.stop - part.start, lanes))

    if row_by_row:
        jax.lax.fori_loop(0, rows, lambda row, _: clear(row, 1), None)
    else:
        clear(0, rows)
    if tiling.chunks == 1 and edge:
        for first in (0, rows - edge):
            maps[..., first : first + edge, :, :] = jnp.zeros((*outer, edge, columns, lanes))


def weighted_sum(neighbors: Iterable[Float[Array, "..."]], taps: Iterable[Float[Array, "1 L"]]) -> Float[Array, "..."]:
    """Returns the sum of neighbors, each weighted by its tap."""
    products = [neighbor * tap for neighbor, tap in zip(neighbors, taps, strict=True)]
    return sum(products[1:], products[0])
