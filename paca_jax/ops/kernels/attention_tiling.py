"""How patch-to-cluster attention is cut into steps of a kernel."""

import math
from typing import NamedTuple

from paca_jax.ops.kernels.common import LANES, largest_divisor, round_up

SUBLANES = 16  # of the narrowest type
MEMORY = 16 * 2**20  # bytes that a step may take; the least that any kind of core has and gives
_ROWS = 4096  # images share a step up to so many patches times heads: more share what a step costs, fewer compile faster
_BLOCKS = 2 * 3  # of patches in a step's memory: what comes, its gradient and the result's, each beside the next step's
_NORM = 4 * 4  # bytes of a channel while its norm's gradient is taken, in float32
_GATHERED = 1024  # patches that share a step, where clusters are gathered


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
    patch = _BLOCKS * wide * itemsize + _NORM * wide
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
    return Tiling(largest_divisor(batch, shared), patches, 1)


def tile_gather(batch: int, patches: int, clusters: int, channels: int, itemsize: int) -> Tiling | None:
    """Returns how gathering clusters is cut, forward and backward, or None where one step's clusters are too many.

    Args:
        batch: images.
        patches: of an image.
        clusters: of an image.
        channels: of a patch.
        itemsize: bytes of a channel.
    """
    wide, shares = round_up(channels, LANES), round_up(clusters, SUBLANES)
    patch = (_BLOCKS * wide + 4 * shares) * itemsize + _NORM * wide
    most = min(_GATHERED, (MEMORY - MEMORY // 4 - 4 * shares * wide * itemsize) // patch // LANES * LANES)
    if most < LANES:
        return None
    if patches > most:
        size = round_up(math.ceil(patches / math.ceil(patches / most)), LANES)
        return Tiling(1, size, math.ceil(patches / size))
    return Tiling(largest_divisor(batch, most // round_up(patches, LANES)), patches, 1)
