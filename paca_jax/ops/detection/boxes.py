"""Boxes: areas, overlaps, clipping, and their coding as deltas.

A box is (x1, y1, x2, y2) in pixels, its width x2 - x1. A box whose right or lower edge comes first is empty.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from paca_jax.ops.detection.arguments import check_shapes

_LARGEST_LOG_RATIO = abs(math.log(16 / 1000))
_SMALLEST_SIDE = 1e-3  # pixels; what an encoded box's sides are at least, so that no delta is infinite
_SMALLEST_UNION = 1e-6  # square pixels


def box_area(boxes: Float[Array, "*N 4"]) -> Float[Array, "*N"]:
    """Returns the areas in square pixels, 0 for empty boxes."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def box_iou(a: Float[Array, "N 4"], b: Float[Array, "M 4"]) -> Float[Array, "N M"]:
    """Returns the intersection over the union of every pair; 0 where both boxes are empty."""
    check_shapes({"a": (a, "N 4"), "b": (b, "M 4")})
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    intersection = _overlap(a, b, 0) * _overlap(a, b, 1)
    union = box_area(a)[:, None] + box_area(b) - intersection
    return intersection / jnp.maximum(union, _SMALLEST_UNION)


def _overlap(a: Float[Array, "N 4"], b: Float[Array, "M 4"], axis: int) -> Float[Array, "N M"]:
    """Returns the length that every pair has in common along x (0) or y (1)."""
    start = jnp.maximum(a[:, None, axis], b[:, axis])
    return jnp.maximum(jnp.minimum(a[:, None, axis + 2], b[:, axis + 2]) - start, 0)


def clip_boxes(boxes: Float[Array, "*N 4"], size: Int[Array, "2"]) -> Float[Array, "*N 4"]:
    """Moves edges outside the image onto its border.

    Args:
        boxes: in pixels.
        size: the image's height and width in pixels.
    """
    height, width = size[0], size[1]
    return jnp.clip(boxes, 0, jnp.stack([width, height, width, height]).astype(boxes.dtype))


def encode_boxes(
    boxes: Float[Array, "*N 4"], targets: Float[Array, "*N 4"], stds: tuple[float, float, float, float]
) -> Float[Array, "*N 4"]:
    """Returns the deltas (dx, dy, dw, dh) by which `decode_boxes` brings each box to its target (Girshick et al., CVPR 2014).

    dx and dy are the shift of the center in widths and heights of the box, dw and dh the logarithms of the sides' ratios, all
    divided by `stds`. Sides count as 1/1000 of a pixel at least, so the deltas of empty boxes are finite.
    """
    centers, sides = _centers_and_sides(boxes)
    target_centers, target_sides = _centers_and_sides(targets)
    sides, target_sides = jnp.maximum(sides, _SMALLEST_SIDE), jnp.maximum(target_sides, _SMALLEST_SIDE)
    deltas = [(target_centers - centers) / sides, jnp.log(target_sides / sides)]
    return jnp.concatenate(deltas, axis=-1) / jnp.asarray(stds)


def decode_boxes(
    boxes: Float[Array, "*#N 4"], deltas: Float[Array, "*#N 4"], stds: tuple[float, float, float, float]
) -> Float[Array, "*#N 4"]:
    """Moves and scales boxes by deltas (see `encode_boxes`); leading axes are broadcast.

    Sides grow or shrink at most by 1000 / 16, as in mmdet. Nothing is clipped to an image.
    """
    deltas = deltas.astype(jnp.float32) * jnp.asarray(stds)
    centers, sides = _centers_and_sides(boxes)
    centers = centers + sides * deltas[..., :2]
    sides = sides * jnp.exp(jnp.clip(deltas[..., 2:], -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO))
    return jnp.concatenate([centers - sides / 2, centers + sides / 2], axis=-1)


def _centers_and_sides(boxes: Float[Array, "*N 4"]) -> tuple[Float[Array, "*N 2"], Float[Array, "*N 2"]]:
    boxes = boxes.astype(jnp.float32)
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
