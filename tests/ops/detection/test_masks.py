"""Pasted masks against a plain statement, and targets against mmdet's recorded ones."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from paca_jax import ops
from tests.ops.detection.test_boxes import GROUND_TRUTHS, PROPOSALS, REFERENCE

SIZE = (20, 26)
# Ordinary, partly outside, larger than the image, less than a pixel, outside, empty, reversed.
BOXES = np.array(
    [
        *([3, 4, 15.5, 12.25], [-6, -3, 9, 8], [-9, -20, 60, 44], [7.2, 8.3, 7.9, 8.8]),
        *([40, 40, 50, 60], [5, 5, 5, 9], [9, 9, 4, 12]),
    ],
    np.float32,
)


def plain_paste(mask, box, size):
    """Returns the image of one mask, one pixel at a time."""
    image = np.zeros(size)
    if box[2] <= box[0] or box[3] <= box[1]:
        return image
    for row, column in np.ndindex(size):
        y = (row + 0.5 - box[1]) / (box[3] - box[1]) * len(mask) - 0.5
        x = (column + 0.5 - box[0]) / (box[2] - box[0]) * len(mask) - 0.5
        for i in (math.floor(y), math.floor(y) + 1):
            for j in (math.floor(x), math.floor(x) + 1):
                if 0 <= i < len(mask) and 0 <= j < len(mask):
                    image[row, column] += (1 - abs(y - i)) * (1 - abs(x - j)) * mask[i, j]
    return image


def test_pasting_matches_every_pixel_by_itself():
    masks = np.random.default_rng(0).random((len(BOXES), 28, 28)).astype(np.float32)
    ours = jax.jit(ops.paste_masks, static_argnums=2)(masks, BOXES, SIZE)
    expected = np.stack([plain_paste(mask, box, SIZE) for mask, box in zip(masks, BOXES.astype(float), strict=True)])
    assert np.all(expected[:4].any(axis=(1, 2)))
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_targets_are_mmdets():
    y, x = np.mgrid[:192, :256]
    x1, y1, x2, y2 = (edge[:, None, None] for edge in GROUND_TRUTHS.T)
    ellipses = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 < 1
    targets = jax.jit(ops.mask_targets)(ellipses, PROPOSALS, np.arange(3))
    np.testing.assert_array_equal(targets, REFERENCE["mask_target"])


def test_targets_are_roi_align_of_the_clipped_box():
    rng = np.random.default_rng(1)
    bitmaps = (rng.random((2, *SIZE)) < 0.6).astype(np.uint8)
    boxes, indices = np.tile(BOXES, (2, 1)), np.repeat([1, 0], len(BOXES))
    ours = jax.jit(ops.mask_targets, static_argnums=3)(bitmaps, boxes, indices, 5)
    clipped = ops.clip_boxes(jnp.asarray(boxes), jnp.array(SIZE))
    both = jax.jit(ops.roi_align, static_argnums=(2, 3))(bitmaps.transpose(1, 2, 0).astype(np.float32), clipped, 1, 5)
    covered = np.take_along_axis(np.asarray(both), indices[:, None, None, None], axis=-1)[..., 0]
    clear = np.abs(covered - 0.5) > 1e-5
    np.testing.assert_array_equal(np.asarray(ours)[clear], covered[clear] >= 0.5)
    assert 0.2 < np.mean(ours) < 0.8
