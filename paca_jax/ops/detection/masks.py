"""Masks of instances: pasted from the frame of a box into the image, and cut out of bitmaps as targets.

Both are bilinear and separable: one small matrix along each axis. They end at a threshold, so products are exact in float32
where a device would round their inputs.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from paca_jax.ops.detection.arguments import check_shapes
from paca_jax.ops.detection.boxes import clip_boxes
from paca_jax.ops.detection.roi_align import sampling_weights

_ROIS = 8  # bitmaps at a time


def paste_masks(masks: Float[Array, "N R R"], boxes: Float[Array, "N 4"], size: tuple[int, int]) -> Float[Array, "N H W"]:
    """Stretches each mask over its box, as mmdet and torchvision do: bilinearly at the pixels' centers, 0 outside the mask.

    The result holds N whole images in float32: paste a few masks at a time where that is too much.

    Args:
        masks: probabilities in the frame of the box.
        boxes: (x1, y1, x2, y2) in pixels; empty ones paste nothing.
        size: the image's height and width in pixels.
    """
    check_shapes({"masks": (masks, "N R R"), "boxes": (boxes, "N 4")})
    y, x = (_pasting_weights(boxes[:, axis], boxes[:, axis + 2], size[1 - axis], masks.shape[2 - axis]) for axis in (1, 0))
    return jnp.einsum("nhr,nrs,nws->nhw", y, masks.astype(jnp.float32), x, precision="highest")


def _pasting_weights(start: Float[Array, "N"], end: Float[Array, "N"], pixels: int, cells: int) -> Float[Array, "N S R"]:
    start, length = start[:, None], (end - start)[:, None]
    position = (jnp.arange(pixels) + 0.5 - start) / jnp.where(length > 0, length, 1) * cells - 0.5
    weights = jnp.maximum(1 - jnp.abs(position[:, :, None] - jnp.arange(cells)), 0)
    return jnp.where(length[:, :, None] > 0, weights, 0)


def mask_targets(
    bitmaps: Shaped[Array, "G H W"], boxes: Float[Array, "N 4"], indices: Int[Array, "N"], out: int = 28
) -> Bool[Array, "N R R"]:
    """Returns what a mask head should answer for each box: whether the bitmap covers at least half of the bin.

    The boxes are clipped to the bitmaps and pooled by RoIAlign (see `roi_align`), as in mmdet.

    Args:
        bitmaps: the ground truths' pixels, 0 or 1 in any type.
        boxes: (x1, y1, x2, y2) in pixels.
        indices: the bitmap of each box.
        out: R, bins along each axis.
    """
    check_shapes({"bitmaps": (bitmaps, "G H W"), "boxes": (boxes, "N 4"), "indices": (indices, "N")})
    if not len(boxes) or not len(bitmaps):
        return jnp.zeros((len(boxes), out, out), bool)
    shape = bitmaps.shape[1:]
    boxes = clip_boxes(boxes.astype(jnp.float32), jnp.asarray(shape))

    def pool(entry: tuple[Array, Array]) -> Float[Array, "R R"]:
        box, index = entry
        columns = sampling_weights(box[0], box[2], 1, out, shape[1])
        rows = sampling_weights(box[1], box[3], 1, out, shape[0])
        bitmap = jnp.asarray(bitmaps)[index].astype(jnp.float32)
        along_x = jnp.einsum("sw,hw->hs", columns, bitmap, precision="highest")
        return jnp.einsum("rh,hs->rs", rows, along_x, precision="highest")

    return jax.lax.map(pool, (boxes, indices), batch_size=_ROIS) >= 0.5
