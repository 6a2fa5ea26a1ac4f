"""The geometry of augmentation: a picture and its objects are resized, cropped, resized again and mirrored together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Num, Shaped, UInt8

from paca_jax.data.transforms.resampling import Box, bilinear, nearest
from paca_jax.data.transforms.resize_geometry import check_whole, fitted_size
from paca_jax.errors import UserError
from paca_jax.fields import check_types


class Placement(NamedTuple):
    """Resizing to `resized`, cropping `box`, resizing that to `final`, and perhaps mirroring left and right.

    Sizes are (height, width) in pixels.

    Attributes:
        original: the size of the picture.
        resized: the size of the whole picture before the crop.
        box: the crop, in pixels of the resized picture.
        final: the size of the result.
        flipped: whether the result is mirrored.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    box: Box
    final: tuple[int, int]
    flipped: bool

    @classmethod
    def of_whole(cls, original: tuple[int, int], final: tuple[int, int], flipped: bool = False) -> "Placement":
        """Returns the placement of a whole picture."""
        return cls(original, final, (0, 0, *final), final, flipped)

    def within(self, shape: tuple[int, int]) -> "Placement":
        """Returns a placement whose result fits into a shape: shrunk, with the same proportions, if necessary."""
        height, width = self.final
        if height <= shape[0] and width <= shape[1]:
            return self
        final = _shrunk(self.final, shape)
        if self == Placement.of_whole(self.original, self.final, self.flipped):  # resize once, not twice
            return Placement.of_whole(self.original, final, self.flipped)
        return self._replace(final=final)

    def pixels(self, pixels: UInt8[np.ndarray, "h w C"]) -> UInt8[np.ndarray, "H W C"]:
        """Returns the result for the picture's pixels, resized by `bilinear`."""
        placed = bilinear(bilinear(pixels, self.resized, self.box), self.final, (0, 0, *self.final))
        return placed[:, ::-1] if self.flipped else placed

    def bitmap(self, bitmap: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, "H W"]:
        """Returns the result for a bitmap, resized by `nearest`."""
        placed = nearest(nearest(bitmap, self.resized, self.box), self.final, (0, 0, *self.final))
        return placed[:, ::-1] if self.flipped else placed

    def points(self, points: Num[np.ndarray, "*n 2"]) -> Float64[np.ndarray, "*n 2"]:
        """Returns the positions, in the result or outside it, of points x, y in pixels of the picture."""
        top, left, height, width = self.box
        first = np.array([self.resized[1] / self.original[1], self.resized[0] / self.original[0]])
        second = np.array([self.final[1] / width, self.final[0] / height])
        placed = (points * first - (left, top)) * second
        if self.flipped:
            placed[..., 0] = self.final[1] - placed[..., 0]
        return placed

    def boxes(self, boxes: Num[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n 4"]:
        """Returns boxes (left, top, right, bottom in pixels) in the result, clipped to it."""
        height, width = self.final
        corners = np.clip(self.points(boxes.reshape(-1, 2, 2)), 0, (width, height))
        return np.concatenate([corners.min(1), corners.max(1)], 1)


def check_sides(short_sides: tuple[int, ...], long_side: int) -> None:
    """Checks that short sides are whole numbers from 1 to the long side.

    Raises:
        UserError: they are not.
    """
    check_whole("long_side", long_side)
    if not short_sides or any(not isinstance(side, int) or not 0 < side <= long_side for side in short_sides):
        raise UserError(
            f"Expected short sides to be whole numbers from 1 to the long side, {long_side}, got {short_sides}. Correct them."
        )


@dataclass(frozen=True)
class RandomCrop:
    """A crop before the last resize, which half of the training pictures get, as in DETR's recipe.

    The picture is resized to a random short side, and a box is cropped whose height and width are drawn uniformly between
    `least` and `most` pixels; a smaller side of the picture limits both.

    Attributes:
        short_sides: short sides of the resized picture, in pixels; one of them is drawn.
        long_side: the limit of its long side, in pixels.
        least: the smallest side of the crop, in pixels.
        most: the largest side of the crop, in pixels.
    """

    short_sides: tuple[int, ...] = (400, 500, 600)
    long_side: int = 1333
    least: int = 384
    most: int = 600

    def __post_init__(self) -> None:
        check_types(self)
        check_sides(self.short_sides, self.long_side)
        check_whole("least", self.least)
        if self.most < self.least:
            raise UserError(f"Expected most of a crop to be {self.least} or more, its least, got {self.most}. Correct it.")


DETR_CROP = RandomCrop()


def draw_placement(
    size: tuple[int, int],
    short_sides: Sequence[int],
    long_side: int,
    crop: RandomCrop | None,
    flip: bool,
    rng: np.random.Generator,
) -> Placement:
    """Draws a size, and, each with probability one half, a crop before it and a flip.

    Args:
        size: (height, width) in pixels of the picture.
        short_sides: short sides of the result, in pixels; one of them is drawn.
        long_side: the limit of the result's long side, in pixels.
        crop: the random crop, or None.
        flip: whether to flip.
        rng: decides everything.
    """
    short_side = _choose(short_sides, rng)
    flipped = flip and rng.random() < 0.5
    if crop is None or rng.random() < 0.5:
        return Placement.of_whole(size, fitted_size(size, short_side, long_side), flipped)
    resized = fitted_size(size, _choose(crop.short_sides, rng), crop.long_side)
    height, width = (_between(min(side, crop.least), min(side, crop.most), rng) for side in resized)
    box = (_between(0, resized[0] - height, rng), _between(0, resized[1] - width, rng), height, width)
    return Placement(size, resized, box, fitted_size((height, width), short_side, long_side), flipped)


def _choose(values: Sequence[int], rng: np.random.Generator) -> int:
    return values[int(rng.random() * len(values))]


def _between(low: int, high: int, rng: np.random.Generator) -> int:
    """Draws a whole number, both ends included."""
    return low + int(rng.random() * (high - low + 1))


def _shrunk(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Returns the largest size of the same proportions, in whole pixels, that fits into a shape."""
    if size[0] * shape[1] > size[1] * shape[0]:
        return shape[0], max(1, size[1] * shape[0] // size[0])
    return max(1, size[0] * shape[1] // size[1]), shape[1]
