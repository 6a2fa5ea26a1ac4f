"""How the maps of convolution clustering are cut into the steps of a kernel, and a step into the rounds of a loop."""

import dataclasses
import math
from collections.abc import Iterator

import jax.numpy as jnp
from jaxtyping import Array, Float

from paca_jax.ops.pallas.blocks import vector_bytes
from paca_jax.ops.pallas.registers import LANES, SUBLANES, largest_divisor, round_up
from paca_jax.ops.pallas.rows import RowTiling

MAX_REACH = SUBLANES - 1  # of a window, because the zeros beside a map are one register wide
_STEP_BYTES = 784 * 2**10  # of a step's patches, at most
_STRIP_ROWS = 16  # of a strip at most, so that its sums fit into vector registers
_ROUND_COLUMNS = 7 * SUBLANES  # of the strips of one round, at most
_ROUND_PATCHES = 448  # of a round of dense layers, at most, times the tiles of their channels


@dataclasses.dataclass(frozen=True)
class ClusteringTiling(RowTiling):
    """The tiling of convolution clustering, whose steps work in rounds of a loop.

    A strip is some rows of eight columns of one tile of channels; a round of the convolution takes strips side by side.

    Attributes:
        reach: rows and columns that a window sees on each side of its patch.
        channel_tiles: tiles of channels, each as wide as a vector register.
        strip_rows: rows of a strip; they divide those of a step.
    """

    reach: int
    channel_tiles: int
    strip_rows: int

    @property
    def halo(self) -> int:
        """Rows of the blocks above and below a step's own, as many as the gradient of a window needs."""
        return max(2 * self.reach, 1)

    @property
    def round_columns(self) -> int:
        """Columns of the strips of a round."""
        return SUBLANES * largest_divisor(self.columns // SUBLANES, _ROUND_COLUMNS // SUBLANES)

    @property
    def round(self) -> tuple[int, int]:
        """Images of a round of dense layers, and rows of each; several images only if the round takes all their rows."""
        most = max(1, _ROUND_PATCHES // (self.channel_tiles * self.columns))
        if self.rows > most:
            return 1, largest_divisor(self.rows, most)
        return largest_divisor(self.images, most // self.rows), self.rows


def spilled_by_clustering(tiling: ClusteringTiling, channels: int, clusters: int) -> int:
    """Returns the bytes of the values of a round of dense layers, and of rows above and below a step, that leave registers.

    It is an upper bound. The factors are from what libtpu reports for a v4; `python -m tests.proof --only kernels` checks them.
    """
    images, rows = tiling.round
    maps = images * rows, tiling.columns
    patches, logits = (vector_bytes((*maps, size), jnp.float32) for size in (channels, clusters))
    if tiling.chunks == 1:
        return 10 * patches + 3 * logits
    sums = vector_bytes((channels, channels), jnp.float32)
    return 21 * patches + 3 * logits + 2 * sums + 8 * vector_bytes((tiling.halo, tiling.columns, channels), jnp.float32)


def clustering_tilings(x: Float[Array, "B H W C"], window: int) -> Iterator[ClusteringTiling]:
    """Yields ways to cut maps for a window of so many rows and columns, those with the largest steps first."""
    channel_tiles = math.ceil(x.shape[-1] / LANES)
    most = _STEP_BYTES // (channel_tiles * LANES * x.dtype.itemsize)  # patches of a step
    larger = None
    while most:
        tiling = _tiling(x.shape, window // 2, channel_tiles, most)
        if tiling != larger:
            yield tiling
        larger, most = tiling, most // 2


def _tiling(shape: tuple[int, ...], reach: int, channel_tiles: int, most: int) -> ClusteringTiling:
    """Returns how maps of this shape are cut into steps of at most so many patches, or of the fewest rows that a step takes."""
    batch, height, width, _ = shape
    columns = round_up(width, SUBLANES)

    def cut(images: int, chunks: int, rows: int, strip_rows: int) -> ClusteringTiling:
        return ClusteringTiling(batch, height, width, images, chunks, rows, reach, channel_tiles, strip_rows)

    strips = math.ceil(height / _STRIP_ROWS)
    strip_rows = math.ceil(height / strips)
    rows = strips * strip_rows
    if rows * columns <= most:
        return cut(largest_divisor(batch, most // (rows * columns)), 1, rows, strip_rows)
    halo = max(2 * reach, 1)
    strip_rows = halo * max(1, min(_STRIP_ROWS, most // columns) // halo)
    chunks = math.ceil(height / max(strip_rows, most // columns // strip_rows * strip_rows))
    rows = round_up(math.ceil(height / chunks), strip_rows)
    return cut(1, math.ceil(height / rows), rows, strip_rows)
