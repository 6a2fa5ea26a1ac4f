"""Sizes of pictures that keep their proportions, and padding them to a shape.

A picture is made as large as fits into a box of `long_side` by `short_side` pixels that lies as the picture does, and its sides
are rounded to whole pixels.
"""

from collections.abc import Sequence

import numpy as np

from paca_jax.errors import UserError
from paca_jax.ops import MEAN


def fitting_scale(size: tuple[int, ...], short_side: int, long_side: int) -> tuple[int, int]:
    """Returns the numerator and the denominator of what a picture's sides are multiplied by.

    Args:
      size: (height, width) in pixels of the picture.
      short_side: of the box, in pixels.
      long_side: of the box, in pixels.
    """
    return (long_side, max(size)) if long_side * min(size) < short_side * max(size) else (short_side, min(size))


def fitted_size(size: tuple[int, ...], short_side: int, long_side: int) -> tuple[int, int]:
    """Returns the (height, width) in pixels that a picture of `size` gets in a box; arguments are those of `fitting_scale`."""
    above, below = fitting_scale(size, short_side, long_side)
    height, width = (max(1, (2 * length * above + below) // (2 * below)) for length in size)
    return height, width


def round_up(length: int, multiple: int) -> int:
    """Returns the least positive multiple that is not below a length."""
    return max(1, -(-length // multiple)) * multiple


def shapes_both_ways(multiple: int, sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Returns shapes to pad to: sizes with their sides rounded up to a multiple, each followed by the same turned."""
    rounded = [(round_up(height, multiple), round_up(width, multiple)) for height, width in sizes]
    return tuple(dict.fromkeys(turned for height, width in rounded for turned in ((height, width), (width, height))))


def first_holding(shapes: Sequence[tuple[int, int]], size: tuple[int, int]) -> tuple[int, int]:
    """Returns the first of some shapes that holds a picture of a size; one of them must."""
    return next(shape for shape in shapes if shape[0] >= size[0] and shape[1] >= size[1])


def pad_picture(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pads a picture on the right and below with the bytes nearest to ImageNet's mean, which normalize to almost 0.

    Args:
      pixels: (h, w, C) uint8.
      shape: (H, W), not below h and w.

    Returns:
      (H, W, C) uint8.
    """
    channels = pixels.shape[2]
    mean = MEAN if channels == 3 else (sum(MEAN) / len(MEAN),)
    padded = np.empty((*shape, channels), np.uint8)
    padded[:] = [round(255 * value) for value in mean]
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return padded


def check_whole(name: str, value: int) -> None:
    """Refuses what is not a whole number above 0.

    Raises:
      UserError: naming the value.
    """
    if not isinstance(value, int) or value < 1:
        raise UserError(f"Expected {name} to be a whole number above 0, got {value!r}; correct it.")


def check_box_and_channels(short_side: int, long_side: int, channels: int) -> None:
    """Refuses a box that is higher than wide, and pictures that are neither gray nor color.

    Raises:
      UserError: naming the values.
    """
    check_whole("short_side", short_side)
    check_whole("long_side", long_side)
    if short_side > long_side:
        raise UserError(f"Expected short_side to be at most long_side, got {short_side} and {long_side}; correct them.")
    if channels not in (1, 3):
        raise UserError(f"Expected 1 (gray) or 3 (color) image channels, got {channels!r}; correct image_channels.")
