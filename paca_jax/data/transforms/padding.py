"""The few shapes that pictures and their objects are padded to: each of them compiles once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from paca_jax.fields import check_value
from paca_jax.ops import MEAN

# Objects are padded to this many rows, or to 4, 16, ... times as many if these are too few.
_MIN_ROWS = 32
_ROWS_STEP = 4


class Shape(NamedTuple):
    """The shape that the pictures and objects of a training batch are padded to.

    Attributes:
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.
        objects: rows for the objects of a picture.
    """

    height: int
    width: int
    objects: int


def round_up(length: int, multiple: int) -> int:
    """Returns the smallest positive multiple that is not below a length."""
    return max(1, -(-length // multiple)) * multiple


def shapes_both_ways(multiple: int, sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Returns the given sizes with sides rounded up to a multiple, each followed by itself with height and width swapped."""
    rounded = [(round_up(height, multiple), round_up(width, multiple)) for height, width in sizes]
    return tuple(dict.fromkeys(shape for height, width in rounded for shape in ((height, width), (width, height))))


def first_holding(shapes: Sequence[tuple[int, int]], size: tuple[int, int]) -> tuple[int, int]:
    """Returns the first shape that holds a picture of a size; one of them must."""
    return next(shape for shape in shapes if shape[0] >= size[0] and shape[1] >= size[1])


def pad_picture(pixels: UInt8[np.ndarray, "h w C"], shape: tuple[int, int]) -> UInt8[np.ndarray, "H W C"]:
    """Pads a picture on the right and at the bottom with the bytes nearest to ImageNet's mean, which normalize to almost 0.

    Args:
        pixels: the picture.
        shape: (H, W), at least h and w.
    """
    channels = pixels.shape[2]
    mean = MEAN if channels == 3 else (sum(MEAN) / len(MEAN),)
    padded = np.empty((*shape, channels), np.uint8)
    padded[:] = [round(255 * value) for value in mean]
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return padded


def object_rows(objects: int) -> int:
    """Returns how many rows a number of objects is padded to: 32, 128, 512, ..."""
    check_value("the number of objects", objects, int)
    rows = _MIN_ROWS
    while rows < objects:
        rows *= _ROWS_STEP
    return rows
