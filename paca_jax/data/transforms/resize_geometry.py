"""Sizes of resized pictures that keep their proportions.

A picture becomes as large as fits into a box of `long_side` by `short_side` pixels in the picture's orientation, with its sides
rounded to whole pixels.
"""

import math

from paca_jax.errors import UserError

_MOST_BYTES = 1 << 30
_MOST_BYTES_PER_PIXEL = 16


def fitting_scale(size: tuple[int, ...], short_side: int, long_side: int) -> tuple[int, int]:
    """Returns the numerator and the denominator of the factor that a picture is scaled by.

    Args:
        size: (height, width) in pixels of the picture.
        short_side: the short side of the box, in pixels.
        long_side: the long side of the box, in pixels.
    """
    return (long_side, max(size)) if long_side * min(size) < short_side * max(size) else (short_side, min(size))


def fitted_size(size: tuple[int, ...], short_side: int, long_side: int) -> tuple[int, int]:
    """Returns the (height, width) in pixels of a picture of `size` fitted into a box; see `fitting_scale`."""
    above, below = fitting_scale(size, short_side, long_side)
    height, width = (max(1, (2 * length * above + below) // (2 * below)) for length in size)
    return height, width


def check_memory(size: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Checks that a picture's view, or its label, is not too large for memory.

    Args:
        size: (height, width) in pixels of the picture.
        shape: of the array of bytes that it becomes.

    Raises:
        UserError: that has more than 1 GiB, and more than 16 bytes for each pixel of the picture.
    """
    if math.prod(shape) > max(_MOST_BYTES, _MOST_BYTES_PER_PIXEL * math.prod(size)):
        raise UserError(
            f"Expected pictures that take at most 1 GiB once they are resized, got one of {size[1]}x{size[0]} (width x height) "
            f"that becomes an array of {'x'.join(map(str, shape))}. Crop it, or choose smaller sizes and scales."
        )


def check_whole(name: str, value: int) -> None:
    """Checks that a value is a whole number above 0.

    Raises:
        UserError: it is not.
    """
    if not isinstance(value, int) or value < 1:
        raise UserError(f"Expected {name} to be a whole number above 0, got {value!r}. Correct it.")


def check_box_and_channels(short_side: int, long_side: int, channels: int) -> None:
    """Checks that a box has whole, ordered sides, and that pictures are gray or in color.

    Raises:
        UserError: they are not.
    """
    check_whole("short_side", short_side)
    check_whole("long_side", long_side)
    if short_side > long_side:
        raise UserError(f"Expected short_side to be at most long_side, got {short_side} and {long_side}. Correct them.")
    if channels not in (1, 3):
        raise UserError(f"Expected 1 (gray) or 3 (color) image channels, got {channels!r}. Correct image_channels.")
