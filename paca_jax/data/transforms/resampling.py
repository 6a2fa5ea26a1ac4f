"""Cutting a box out of a resized picture without resizing the whole of it.

Pixel centers lie at half numbers: the center of pixel i of n, at (i + 0.5) / n of the axis, stays where it is.
"""

import numpy as np

# The (top, left, height, width) of a box in pixels.
Box = tuple[int, int, int, int]


def bilinear(pixels: np.ndarray, size: tuple[int, int], box: Box) -> np.ndarray:
    """Resizes between the two nearest pixels along each axis, also where the picture shrinks (no antialiasing).

    Args:
      pixels: (H, W, C) uint8.
      size: (height, width) in pixels of the resized picture.
      box: the part of the resized picture that is wanted.

    Returns:
      (height of the box, width of the box, C) uint8.
    """
    top, left, height, width = box
    if pixels.shape[:2] == size:
        return pixels[top : top + height, left : left + width]
    above, below, down = _neighbors(pixels.shape[0], size[0], top, height)
    before, after, right = _neighbors(pixels.shape[1], size[1], left, width)
    first, last = before[0], after[-1] + 1
    rows = _between(pixels[above, first:last], pixels[below, first:last], down[:, None, None])
    columns = _between(rows.take(before - first, 1), rows.take(after - first, 1), right[:, None])
    return (columns + np.float32(0.5)).astype(np.uint8)


def nearest(values: np.ndarray, size: tuple[int, int], box: Box) -> np.ndarray:
    """Resizes to the value of the pixel in which a center falls.

    Args:
      values: (H, W).
      size: (height, width) in pixels of the resized map.
      box: the part of the resized map that is wanted.

    Returns:
      (height of the box, width of the box) of the same type.
    """
    top, left, height, width = box
    rows = (2 * np.arange(top, top + height) + 1) * values.shape[0] // (2 * size[0])
    columns = (2 * np.arange(left, left + width) + 1) * values.shape[1] // (2 * size[1])
    return values[rows[:, None], columns]


def _neighbors(length: int, resized: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For `count` places of an axis: the pixel before, the pixel after, and the weight of the latter in float32."""
    centers = (np.arange(start, start + count) + 0.5) * (length / resized) - 0.5
    centers = np.clip(centers, 0, length - 1)
    before = centers.astype(np.int64)
    return before, np.minimum(before + 1, length - 1), (centers - before).astype(np.float32)


def _between(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Interpolates in float32."""
    first = first.astype(np.float32, copy=False)
    between = second - first
    between *= weight
    between += first
    return between
