"""Drawing where a training picture goes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paca_jax.data.transforms.placement import Placement
from paca_jax.data.transforms.resize_geometry import check_whole, fitted_size
from paca_jax.errors import UserError


def check_sides(short_sides: tuple[int, ...], long_side: int) -> None:
    """Refuses short sides that are no whole numbers from 1 to the long one.

    Raises:
      UserError: naming them.
    """
    check_whole("long_side", long_side)
    if not short_sides or any(not isinstance(side, int) or not 0 < side <= long_side for side in short_sides):
        raise UserError(
            f"Expected short sides to be whole numbers from 1 to the long side, {long_side}, got {short_sides}; correct them."
        )


@dataclass(frozen=True)
class RandomCrop:
    """A crop before the last resize, which half of the training pictures get, as in DETR's recipe.

    The picture is resized to a drawn short side, and a box is cut out whose height and width are drawn uniformly between
    `least` and `most` pixels, or the picture's own where that is less.

    Attributes:
      short_sides: of the resized picture, in pixels; one of them is drawn.
      long_side: which it does not exceed.
      least: of the crop's sides, in pixels.
      most: of the crop's sides, in pixels.
    """

    short_sides: tuple[int, ...] = (400, 500, 600)
    long_side: int = 1333
    least: int = 384
    most: int = 600

    def __post_init__(self) -> None:
        check_sides(self.short_sides, self.long_side)
        check_whole("least", self.least)
        if self.most < self.least:
            raise UserError(f"Expected the crop's most to be {self.least} or more, its least, got {self.most}; correct it.")


DETR_CROP = RandomCrop()


def draw_placement(
    size: tuple[int, int],
    short_sides: Sequence[int],
    long_side: int,
    crop: RandomCrop | None,
    flip: bool,
    rng: np.random.Generator,
) -> Placement:
    """Draws a size, with probability one half a crop before it, and with probability one half a flip.

    Args:
      size: (height, width) in pixels of the picture.
      short_sides: of the result, in pixels; one of them is drawn.
      long_side: which the result does not exceed.
      crop: the crop, None for none.
      flip: whether to flip.
      rng: decides everything.
    """
    short_side = _one_of(short_sides, rng)
    flipped = flip and rng.random() < 0.5
    if crop is None or rng.random() < 0.5:
        return Placement.of_whole(size, fitted_size(size, short_side, long_side), flipped)
    resized = fitted_size(size, _one_of(crop.short_sides, rng), crop.long_side)
    height, width = (_between(min(side, crop.least), min(side, crop.most), rng) for side in resized)
    box = (_between(0, resized[0] - height, rng), _between(0, resized[1] - width, rng), height, width)
    return Placement(size, resized, box, fitted_size((height, width), short_side, long_side), flipped)


def _one_of(values: Sequence[int], rng: np.random.Generator) -> int:
    return values[int(rng.random() * len(values))]


def _between(low: int, high: int, rng: np.random.Generator) -> int:
    """Draws a whole number, both ends included."""
    return low + int(rng.random() * (high - low + 1))
