"""How the maps of a depthwise MLP are cut into the steps of a kernel, and a step into strips that registers hold."""

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from paca_jax.ops.pallas.registers import LANES, SUBLANES, largest_divisor, round_up
from paca_jax.ops.pallas.rows import RowTiling

HALO = 2  # rows that a step sees above and below its own if images are cut
# The most patches of a step. Several images, and images of many channels, keep the matrix units busy with fewer patches.
_LARGE_STEP_PATCHES, _SMALL_STEP_PATCHES = 1568, 448
_PATCH_BYTES = 480 * 2**10
_STRIP_PATCHES = 56  # patches whose sums fit into vector registers


class Strip(NamedTuple):
    """A part of a step's maps: the first image, row and column, and how many of each."""

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
class MlpTiling(RowTiling):
    """The tiling of a depthwise MLP, whose steps hold the patches of padded rows one after the other."""

    @property
    def packed(self) -> bool:
        """Whether patches come as whole images, without the padding of their rows."""
        return self.chunks == 1 and self.columns > self.width

    @property
    def step_patches(self) -> int:
        """Patches of a step, with padding."""
        return self.step_rows * self.columns

    @property
    def first_patch(self) -> int:
        """Patches of the rows above a step's own."""
        return 0 if self.chunks == 1 else HALO * self.columns

    def strips(self) -> Iterator[Strip]:
        """Yields the strips of a step, in the order of its patches."""
        if self.columns > _STRIP_PATCHES:
            for image in range(self.images):
                for row in range(self.rows):
                    for column in range(0, self.columns, _STRIP_PATCHES):
                        yield Strip(image, 1, row, 1, column, min(_STRIP_PATCHES, self.columns - column))
            return
        rows = largest_divisor(self.rows, _STRIP_PATCHES // self.columns)
        images = largest_divisor(self.images, _STRIP_PATCHES // (rows * self.columns)) if rows == self.rows else 1
        for image in range(0, self.images, images):
            for row in range(0, self.rows, rows):
                yield Strip(image, images, row, rows, 0, self.columns)

    def row_inside(self, value: Float[Array, "R L"], chunk: Array, row: int) -> Float[Array, "R L"]:
        """Returns the values of a row, or zeros if row `row` of the step at `chunk` lies outside the image."""
        if self.chunks == 1 or 0 <= row < self.height - (self.chunks - 1) * self.rows:
            return value
        first = chunk * self.rows + row
        return jnp.where(first >= 0 if row < 0 else first < self.height, value, 0.0)


def spilled_by_mlp(tiling: MlpTiling, channels: int, dtype: DTypeLike) -> int:
    """Returns the bytes of a step's hidden maps, patches and gradients of kernels that leave registers.

    It is an upper bound. The factors are from what libtpu reports for a v4; `python -m tests.proof --only kernels` checks them.
    """
    patches, wide = tiling.step_patches + 2 * tiling.first_patch, round_up(channels, LANES)
    return patches * (7 * LANES + (6 + 2 * jnp.dtype(dtype).itemsize) * wide) + 2 * 4 * LANES * wide


def mlp_tilings(x: Float[Array, "B H W C"]) -> Iterator[MlpTiling]:
    """Yields ways to cut maps, those with the largest steps first. The batch may have to be one image larger."""
    lanes = round_up(x.shape[-1], LANES)
    most = _LARGE_STEP_PATCHES if lanes <= 2 * LANES else _SMALL_STEP_PATCHES
    most = min(most, _PATCH_BYTES // (lanes * x.dtype.itemsize))
    larger = None
    while most >= 2 * SUBLANES:
        tiling = _tiling(x.shape, most)
        if tiling != larger:
            yield tiling
        larger, most = tiling, most // 2


def _tiling(shape: tuple[int, ...], most: int) -> MlpTiling:
    """Returns how maps of this shape are cut into steps of at most so many patches, or of two rows or images."""
    batch, height, width, _ = shape
    columns = round_up(width, SUBLANES)
    if height * columns > most:
        chunks = math.ceil(height * columns / most)
        rows = round_up(math.ceil(height / chunks), HALO)
        return MlpTiling(batch, height, width, 1, math.ceil(height / rows), rows)
    pair = 1 if height * columns % (2 * SUBLANES) == 0 else 2  # a bfloat16 register packs two rows
    batch = round_up(batch, pair)
    images = pair * largest_divisor(batch // pair, min(most, _SMALL_STEP_PATCHES) // (pair * height * columns))
    return MlpTiling(batch, height, width, images, 1, height)
