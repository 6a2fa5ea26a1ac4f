"""How the maps of a depthwise MLP are cut into steps of a kernel, and one step into what vector registers hold."""

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.pallas.common import LANES, largest_divisor, round_up

SUBLANES = 8
# Most patches of a step, and most bytes of them: a v4 chip's 16 MiB of vector memory hold all that comes with them. Several
# images, and images of many channels, keep the matrix units busy with fewer patches.
_STEP, _STEP_BYTES = 1568, 480 * 2**10
_SMALL_STEP = 448
_STRIP = 56  # patches whose sums fit into vector registers


class Strip(NamedTuple):
    """A part of a step's maps: images, rows and columns, each as its first and its number."""

    image: int
    images: int
    row: int
    rows: int
    column: int
    columns: int

    @property
    def patches(self) -> int:
        """Patches of the strip."""
        return self.images * self.rows * self.columns


@dataclasses.dataclass(frozen=True)
class Tiling:
    """A step works on whole images, several where they are small, or on some rows of one image.

    Attributes:
        batch: images, as many as fill whole steps.
        height: rows of an image.
        width: columns of an image.
        images: images of a step.
        chunks: steps of an image.
        rows: rows of a step; the last step of an image may have rows below the image.
    """

    batch: int
    height: int
    width: int
    images: int
    chunks: int
    rows: int

    @property
    def columns(self) -> int:
        """Columns, with those on the right that fill vector registers."""
        return round_up(self.width, SUBLANES)

    @property
    def packed(self) -> bool:
        """Whether patches come as rows of whole images, without the columns on the right."""
        return self.chunks == 1 and self.columns > self.width

    @property
    def patches(self) -> int:
        """Patches of a step, with the columns on the right."""
        return self.images * self.rows * self.columns

    @property
    def halo(self) -> int:
        """Patches of two rows: what a step sees above and below its own where it does not see whole images."""
        return 2 * self.columns

    @property
    def grid(self) -> tuple[int, int]:
        """Steps over images, and over the rows of an image."""
        return self.batch // self.images, self.chunks

    def strips(self) -> Iterator[Strip]:
        """Yields the strips of a step, in the order of its patches."""
        if self.columns > _STRIP:
            for image in range(self.images):
                for row in range(self.rows):
                    for column in range(0, self.columns, _STRIP):
                        yield Strip(image, 1, row, 1, column, min(_STRIP, self.columns - column))
            return
        rows = largest_divisor(self.rows, _STRIP // self.columns)
        images = largest_divisor(self.images, _STRIP // (rows * self.columns)) if rows == self.rows else 1
        for image in range(0, self.images, images):
            for row in range(0, self.rows, rows):
                yield Strip(image, images, row, rows, 0, self.columns)

    def inside(self, value: Float[Array, "R L"], chunk: Array, row: int) -> Float[Array, "R L"]:
        """Returns `value`, or zeros where row `row` of the step at `chunk` lies outside the image."""
        if self.chunks == 1 or 0 <= row < self.height - (self.chunks - 1) * self.rows:
            return value
        first = chunk * self.rows + row
        return jnp.where(first >= 0 if row < 0 else first < self.height, value, 0.0)


def tile(x: Float[Array, "B H W C"]) -> Tiling:
    """Returns how maps are cut; the batch may have to be one image larger."""
    batch, height, width, channels = x.shape
    columns = round_up(width, SUBLANES)
    lanes = round_up(channels, LANES)
    most = min(_STEP if lanes <= 2 * LANES else _SMALL_STEP, _STEP_BYTES // (lanes * x.dtype.itemsize))
    if height * columns > most:
        chunks = math.ceil(height * columns / most)
        rows = round_up(math.ceil(height / chunks), 2)
        return Tiling(batch, height, width, 1, math.ceil(height / rows), rows)
    pair = 1 if height * columns % (2 * SUBLANES) == 0 else 2  # bfloat16 packs two rows
    batch = round_up(batch, pair)
    images = pair * largest_divisor(batch // pair, _SMALL_STEP // (pair * height * columns))
    return Tiling(batch, height, width, images, 1, height)
