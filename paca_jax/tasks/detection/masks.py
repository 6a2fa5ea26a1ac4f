"""Pasting the masks of detections into their pictures."""

import numpy as np
from jaxtyping import Bool, Float


def paste_mask(mask: Float[np.ndarray, "R R"], box: Float[np.ndarray, "4"], size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """Returns the pixels of an object: its mask, resized bilinearly to the box, with a threshold of one half.

    The same as `paca_jax.ops.paste_masks` for one mask, but on the host and inside the box only. Pictures differ in size, and
    on a device each size would need a program of its own.

    Args:
        mask: probabilities in the frame of the box.
        box: left, top, right and bottom edge in pixels.
        size: the picture's height and width in pixels.
    """
    pasted = np.zeros(size, bool)
    (left, top, right, bottom), side = box.tolist(), len(mask)
    rows, columns = _pixels(top, bottom, size[0]), _pixels(left, right, size[1])
    if rows.stop > rows.start and columns.stop > columns.start:
        along_rows = _weights(rows, top, bottom, side) @ mask
        pasted[rows.start : rows.stop, columns.start : columns.stop] = (
            along_rows @ _weights(columns, left, right, side).T >= 0.5
        )
    return pasted


def _pixels(start: float, end: float, size: int) -> range:
    """Returns the pixels of one axis that a box touches."""
    return range(max(int(np.floor(start)), 0), min(int(np.ceil(end)), size)) if end > start else range(0)


def _weights(pixels: range, start: float, end: float, side: int) -> Float[np.ndarray, "n R"]:
    """Returns the bilinear weights of a mask's cells at the centers of pixels, along one axis."""
    position = (np.arange(pixels.start, pixels.stop) + 0.5 - start) / (end - start) * side - 0.5
    return np.maximum(1 - np.abs(position[:, None] - np.arange(side)), 0)
