"""How patch-to-cluster attention is cut into steps of a kernel."""

import math

from paca_jax.ops.pallas.common import LANES, largest_divisor, round_up
from paca_jax.ops.pallas.patches import BLOCKS, MEMORY, NORM, SUBLANES, Tiling

_ROWS = 4096  # images share a step up to so many patches times heads: more share what a step costs, fewer compile faster


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
    patch = BLOCKS * wide * itemsize + NORM * wide
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
