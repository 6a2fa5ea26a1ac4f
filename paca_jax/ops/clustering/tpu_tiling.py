"""How the maps of convolution clustering are cut into steps of a kernel, and one step into what a loop's round works on."""

import dataclasses
import math

from jaxtyping import Array, Float

from paca_jax.ops.pallas.common import LANES, largest_divisor, round_up

SUBLANES = 8
MAX_REACH = SUBLANES - 1  # patches that a window may see beside its own: the gap of zeros beside a map is one register wide
_STEP_BYTES = 784 * 2**10  # of a step's patches: a v4 chip's 16 MiB of vector memory hold all that comes with them
_SEEN_BYTES = 1536 * 2**10  # most of a step's patches and those above and below
_STRIP_ROWS = 16  # most rows of a strip, whose sums fit into vector registers
_ROUND_COLUMNS = 7 * SUBLANES  # most columns of the strips of one round
_ROUND_PATCHES = 448  # most patches of a round of dense layers, by tile of channels


@dataclasses.dataclass(frozen=True)
class Tiling:
    """A step works on whole images, several where they are small, or on some rows of one image.

    Attributes:
        batch: images.
        height: rows of an image.
        width: columns of an image.
        tiles: of channels, each as wide as a vector register.
        reach: rows and columns that a window sees on each side of its own.
        images: images of a step.
        chunks: steps of an image.
        rows: rows of a step; the last step of an image may have rows below the image.
        strip: rows of a strip; they divide those of a step.
    """

    batch: int
    height: int
    width: int
    tiles: int
    reach: int
    images: int
    chunks: int
    rows: int
    strip: int

    @property
    def columns(self) -> int:
        """Columns, with those on the right that fill vector registers."""
        return round_up(self.width, SUBLANES)

    @property
    def round_columns(self) -> int:
        """Columns of the strips that a round works on."""
        return SUBLANES * largest_divisor(self.columns // SUBLANES, _ROUND_COLUMNS // SUBLANES)

    @property
    def lines(self) -> int:
        """Rows of all images of a step."""
        return self.images * self.rows

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return self.height * self.width

    @property
    def halo(self) -> int:
        """Rows of the blocks above and below a step's own: those that the gradient of a window sees."""
        return max(2 * self.reach, 1)

    def holds(self, itemsize: int) -> bool:
        """Whether a chip's memory holds a step of patches of so many bytes a channel."""
        seen = self.rows + 2 * self.halo
        return self.chunks == 1 or seen * self.columns * self.tiles * LANES * itemsize <= _SEEN_BYTES

    @property
    def grid(self) -> tuple[int, int]:
        """Steps over images, and over the rows of an image."""
        return self.batch // self.images, self.chunks

    @property
    def round(self) -> tuple[int, int]:
        """Images, and rows of each, that a round of dense layers takes: several images only if it takes all rows."""
        most = max(1, _ROUND_PATCHES // (self.tiles * self.columns))
        if self.rows > most:
            return 1, largest_divisor(self.rows, most)
        return largest_divisor(self.images, most // self.rows), self.rows


def tile(x: Float[Array, "B H W C"], window: int) -> Tiling:
    """Returns how maps are cut for a window of so many rows and columns."""
    batch, height, width, channels = x.shape
    columns, tiles, reach = round_up(width, SUBLANES), math.ceil(channels / LANES), window // 2
    most = _STEP_BYTES // (tiles * LANES * x.dtype.itemsize)  # patches
    strips = math.ceil(height / _STRIP_ROWS)
    strip = math.ceil(height / strips)
    rows = strips * strip
    if rows * columns <= most:
        images = largest_divisor(batch, most // (rows * columns))
        return Tiling(batch, height, width, tiles, reach, images, 1, rows, strip)
    halo = max(2 * reach, 1)
    strip = halo * max(1, min(_STRIP_ROWS, most // columns) // halo)
    chunks = math.ceil(height / max(strip, most // columns // strip * strip))
    rows = round_up(math.ceil(height / chunks), strip)
    return Tiling(batch, height, width, tiles, reach, 1, math.ceil(height / rows), rows, strip)
