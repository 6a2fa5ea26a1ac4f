"""How patch-to-cluster attention is cut into steps of a kernel."""

import math
from typing import NamedTuple

from paca_jax.ops.kernels.common import LANES, round_up

SUBLANES = 16  # of the narrowest type
MEMORY = 16 * 2**20  # bytes that a step may take; the least that any kind of core has and gives
_ROWS = 4096  # images share a step up to so many patches times heads: more share what a step costs, fewer compile faster
_BLOCKS = 2 * 3  # of patches in a step's memory: what comes, its gradient and the result's, each beside the next step's


class Tiling(NamedTuple):
    """A step works on one tile of an image's patches, or on several images that have one tile.

    Attributes:
        images: of a step; they divide the batch.
        patches: of a tile.
        tiles: of an image; the last one may be filled in part.
    """

    images: int
    patches: int
    tiles: int


def tile(
    batch: int, patches: int, clusters: int, channels: int, num_heads: int, head_rows: int, itemsize: int
) -> Tiling | None:
    """Returns a tiling whose steps fit the memory, forward and backward, or None where there is none.

    Args:
        batch: images.
        patches: of an image.
        clusters: of an image, or other attended tokens.
        channels: of a patch.
        num_heads: attention heads.
        head_rows: channels of a head, padded to whole tiles of memory.
        itemsize: bytes of a channel.
    """
    wide, rows = round_up(channels, LANES), num_heads * head_rows
    attended, attended_lanes = round_up(clusters, SUBLANES), round_up(clusters, LANES)
    weights = 4 * rows * wide * (itemsize + 4)
    image = attended * wide * 4 * itemsize + rows * attended_lanes * 2 * itemsize
    patch = _BLOCKS * wide * itemsize
    scratch = num_heads * attended * (8 + itemsize) + rows * (8 + 2 * itemsize)
    free = MEMORY - weights - image - rows * attended_lanes * 8
    most = free // (patch + scratch) // LANES * LANES
    if most < LANES:
        return None
    if patches > most:
        tiles = math.ceil(patches / most)
        size = round_up(math.ceil(patches / tiles), SUBLANES)
        return Tiling(1, size, math.ceil(patches / size))
    lanes = round_up(patches, LANES)
    shared = min(_ROWS // (num_heads * lanes), (free - lanes * scratch) // (image + lanes * patch))
    return Tiling(max((count for count in range(1, shared + 1) if batch % count == 0), default=1), patches, 1)
