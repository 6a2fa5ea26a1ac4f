"""RandAugment (Cubuk et al., 2020) with Pillow, in the form known as `rand-m9-mstd0.5-inc1`.

Operations are drawn from fifteen with replacement. Each is applied with probability one half, at a magnitude from 0 to 10 of
its own. The larger the magnitude, the more an "increasing" operation changes a picture. Operations that have a direction take
either one with equal probability.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MAX_MAGNITUDE = 10.0

# The fill of pixels from outside the picture: ImageNet's mean color, and its luma for gray pictures.
_FILL: dict[str, Any] = {"RGB": (124, 116, 104), "L": 117}


class Operation(NamedTuple):
    """One operation.

    Attributes:
        apply: (image, argument) -> image of the same mode, "RGB" or "L".
        argument: strength -> the argument of `apply`. The strength is the magnitude on a scale of 0 to 1, negative for the
            opposite direction.
        directed: whether the operation has a direction.
    """

    apply: Callable[[Image.Image, Any], Image.Image]
    argument: Callable[[float], Any]
    directed: bool


def rand_augment(
    image: Image.Image, rng: np.random.Generator, operations: int, magnitude: float, magnitude_std: float
) -> Image.Image:
    """Applies random operations to a picture.

    Args:
        image: a Pillow image of mode "RGB" or "L".
        rng: decides everything that is random.
        operations: the number of operations to draw, about half of which are applied.
        magnitude: the mean of the normal distribution of magnitudes, which are then clipped to 0 to 10.
        magnitude_std: its standard deviation.

    Returns:
        An image of the same mode and size; the argument itself if no operation was applied.
    """
    for name, strength in draw_operations(rng, operations, magnitude, magnitude_std):
        apply, argument, _ = OPERATIONS[name]
        image = apply(image, argument(strength))
    return image


def draw_operations(
    rng: np.random.Generator, operations: int, magnitude: float, magnitude_std: float
) -> list[tuple[str, float]]:
    """Returns the name and strength (see `Operation`) of each operation to apply; arguments as for `rand_augment`."""
    drawn = []
    for index in rng.integers(len(_NAMES), size=operations):
        if rng.random() < 0.5:
            strength = min(max(rng.normal(magnitude, magnitude_std), 0.0), MAX_MAGNITUDE) / MAX_MAGNITUDE
            if OPERATIONS[_NAMES[index]].directed and rng.random() < 0.5:
                strength = -strength
            drawn.append((_NAMES[index], strength))
    return drawn


def _nothing(strength: float) -> None:
    """Returns None, for an operation without an argument."""


def _factor(strength: float) -> float:
    """Returns the factor of an enhancement: 1 changes nothing, 0 would remove all color (contrast, ...)."""
    return max(0.1, 1 + 0.9 * strength)


def _shear(strength: float) -> float:
    """Returns the shift along one axis per pixel along the other."""
    return 0.3 * strength


def _shift(strength: float) -> float:
    """Returns a fraction of the width or height."""
    return 0.45 * strength


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    """Keeps the highest bits of each value; 0 bits give black, which Pillow's own function does not allow."""
    kept = 256 - 2 ** (8 - bits)
    return image.point([value & kept for value in range(256)] * len(image.getbands()))


def _solarize_add(image: Image.Image, amount: int) -> Image.Image:
    """Brightens the darker half of the values."""
    table = [min(255, value + amount) if value < 128 else value for value in range(256)]
    return image.point(table * len(image.getbands()))


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=_FILL[image.mode])


def _affine(image: Image.Image, *coefficients: float) -> Image.Image:
    """Takes the pixel at (x, y) from (a x + b y + c, d x + e y + f)."""
    fill = _FILL[image.mode]
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC, fillcolor=fill)


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": Operation(lambda image, _: ImageOps.autocontrast(image), _nothing, False),
    "Equalize": Operation(lambda image, _: ImageOps.equalize(image), _nothing, False),
    "Invert": Operation(lambda image, _: ImageOps.invert(image), _nothing, False),
    # Degrees.
    "Rotate": Operation(_rotate, lambda strength: 30 * strength, True),
    # The number of bits to keep, 4 to none.
    "PosterizeIncreasing": Operation(_posterize, lambda strength: 4 - int(4 * strength), False),
    # The smallest value that is inverted.
    "SolarizeIncreasing": Operation(ImageOps.solarize, lambda strength: 256 - int(256 * strength), False),
    "SolarizeAdd": Operation(_solarize_add, lambda strength: int(110 * strength), False),
    "ColorIncreasing": Operation(lambda image, by: ImageEnhance.Color(image).enhance(by), _factor, True),
    "ContrastIncreasing": Operation(lambda image, by: ImageEnhance.Contrast(image).enhance(by), _factor, True),
    "BrightnessIncreasing": Operation(lambda image, by: ImageEnhance.Brightness(image).enhance(by), _factor, True),
    "SharpnessIncreasing": Operation(lambda image, by: ImageEnhance.Sharpness(image).enhance(by), _factor, True),
    "ShearX": Operation(lambda image, by: _affine(image, 1, by, 0, 0, 1, 0), _shear, True),
    "ShearY": Operation(lambda image, by: _affine(image, 1, 0, 0, by, 1, 0), _shear, True),
    "TranslateXRel": Operation(lambda image, by: _affine(image, 1, 0, by * image.width, 0, 1, 0), _shift, True),
    "TranslateYRel": Operation(lambda image, by: _affine(image, 1, 0, 0, 0, 1, by * image.height), _shift, True),
}
_NAMES = tuple(OPERATIONS)
