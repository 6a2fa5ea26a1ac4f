"""How patch-to-cluster attention is cut into steps of a kernel."""

import math

from paca_jax.ops.pallas.limits import SMALLEST_VMEM
from paca_jax.ops.pallas.patches import NORM_BYTES, PATCH_BLOCKS, PatchTiling
from paca_jax.ops.pallas.registers import LANES, PACKED_SUBLANES, largest_divisor, round_up

_STEP_QUERIES = 4096  # patches times heads up to which images share a step: more spread its fixed cost, fewer compile faster


def tile_attention(
    batch: int, patches: int, clusters: int, channels: int, num_heads: int, head_rows: int, itemsize: int
) -> PatchTiling | None:
    """Returns a tiling whose steps fit into memory, forward and backward, or None if there is none.

    Args:
        batch: images.
        patches: of an image.
        clusters: of an image; in plain attention, the patches that are attended.
        channels: of a patch.
        num_heads: attention heads.
        head_rows: channels of a head, padded to whole registers.
        itemsize: bytes of a channel.
    """
    wide, rows = round_up(channels, LANES), num_heads * head_rows
    attended, attended_lanes = round_up(clusters, PACKED_SUBLANES), round_up(clusters, LANES)
    parameters = 4 * rows * wide * (itemsize + 4)
    image = attended * wide * 4 * itemsize + rows * attended_lanes * 2 * itemsize
    patch = PATCH_BLOCKS * wide * itemsize + NORM_BYTES * wide
    scratch = num_heads * attended * (8 + itemsize) + rows * (8 + 2 * itemsize)
    free = SMALLEST_VMEM - parameters - image - rows * attended_lanes * 8
    most = free // (patch + scratch) // LANES * LANES
    if most < LANES:
        return None
    if patches > most:
        tiles = math.ceil(patches / most)
        size = round_up(math.ceil(patches / tiles), PACKED_SUBLANES)
        return PatchTiling(1, size, math.ceil(patches / size))
    lanes = round_up(patches, LANES)
    shared = min(_STEP_QUERIES // (num_heads * lanes), (free - lanes * scratch) // (image + lanes * patch))
    return PatchTiling(largest_divisor(batch, shared), patches, 1)
