"""Resizing a picture and cropping a box out of the result, without resizing the rest.

The center of pixel i of n lies at (i + 0.5) / n of the axis, before and after.
"""

import numpy as np
from jaxtyping import Shaped, UInt8

# The (top, left, height, width) of a box in pixels.
Box = tuple[int, int, int, int]


def bilinear(pixels: UInt8[np.ndarray, "H W C"], size: tuple[int, int], box: Box) -> UInt8[np.ndarray, "h w C"]:
    """Interpolates linearly between the two nearest pixels along each axis, also when shrinking (no antialiasing).

    Args:
        pixels: the picture.
        size: (height, width) in pixels of the resized picture.
        box: the part of the resized picture to return.

    Returns:
        The pixels of the box, of height h and width w.
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


def nearest(values: Shaped[np.ndarray, "H W"], size: tuple[int, int], box: Box) -> Shaped[np.ndarray, "h w"]:
    """Resizes by taking the value of the pixel that a center falls into.

    Args:
        values: the map.
        size: (height, width) in pixels of the resized map.
        box: the part of the resized map to return.

    Returns:
        The values of the box, of height h and width w and of the same type.
    """
    top, left, height, width = box
    rows = (2 * np.arange(top, top + height) + 1) * values.shape[0] // (2 * size[0])
    columns = (2 * np.arange(left, left + width) + 1) * values.shape[1] // (2 * size[1])
    return values[rows[:, None], columns]


def _neighbors(length: int, resized: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, for `count` pixels of a resized axis, the pixels before and after, and the float32 weight of the latter."""
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
