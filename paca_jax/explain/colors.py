"""Colors for classes, and label maps as PNG files."""

import functools
from typing import Annotated

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from paca_jax.errors import UserError
from paca_jax.explain.checks import WHOLE, checked_array
from paca_jax.explain.png import to_png
from paca_jax.fields import Range, check_value

MAX_CLASSES = 255
Classes = Annotated[int, Range(1, MAX_CLASSES)]  # how many there are to color
IGNORED = 255  # the label of ignored pixels

_FIRST = (70, 76, 92)  # slate: class 0 is often the background
_STEPS = 18  # candidate levels of red, of green and of blue
# Bounds that exclude dark, pale and garish colors, in units of Oklab.
_LIGHTNESS, _CHROMA = (0.50, 0.88), (0.11, 0.18)
_LIGHTNESS_WEIGHT = 0.4  # over a picture, hue distinguishes classes better than lightness
# From linear light to cone responses, and from their cube roots to Oklab (Ottosson 2020).
_TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_OKLAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def palette(num_classes: int) -> UInt8[np.ndarray, "K 3"]:
    """Returns a color for each class: red, green and blue.

    Class 0 is slate. Each further color is perceptually as far as possible from those before it and from black and white, so
    the first colors do not depend on the number of classes, and fewer classes are easier to distinguish.

    Args:
        num_classes: 1 to 255.

    Raises:
        UserError: if `num_classes` is something else.
    """
    check_value("num_classes", num_classes, Classes)
    return _colors()[:num_classes].copy()


def mask_png(labels: Integer[np.ndarray, "H W"], num_classes: int) -> bytes:
    """Returns a label map as the bytes of a palette PNG: its indices are the labels, its colors those of `palette`.

    Args:
        labels: classes from 0; 255 marks ignored pixels, which become black and transparent.
        num_classes: 1 to 255.

    Raises:
        UserError: if a label is neither a class nor 255, `labels` are no whole numbers or do not have two axes, or
            `num_classes` is out of range.
    """
    check_value("num_classes", num_classes, Classes)
    labels = checked_labels(labels, num_classes)
    image = Image.fromarray(labels).convert("P")
    colors = np.zeros((256, 3), np.uint8)
    colors[:num_classes] = palette(num_classes)
    image.putpalette(colors.tobytes())
    image.info["transparency"] = IGNORED
    return to_png(image)


def checked_labels(labels: Integer[np.ndarray, "H W"], num_classes: int) -> UInt8[np.ndarray, "H W"]:
    """Returns the labels as uint8.

    Raises:
        UserError: if a label is neither a class nor 255, or `labels` are no whole numbers or do not have two axes.
    """
    labels = np.asarray(checked_array("labels", labels, WHOLE, ("H", "W")))
    wrong = labels[(labels != IGNORED) & ((labels < 0) | (labels >= num_classes))]
    if wrong.size:
        raise UserError(f"Expected labels from 0 to {num_classes - 1}, or {IGNORED} for none, got {wrong[0]}. Correct them.")
    return labels.astype(np.uint8)


@functools.cache
def _colors() -> UInt8[np.ndarray, "255 3"]:
    levels = np.linspace(0, 255, _STEPS).round().astype(np.uint8)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lightness, *hue = _oklab(candidates).T
    chroma = np.hypot(*hue)
    candidates = candidates[
        (lightness >= _LIGHTNESS[0]) & (lightness <= _LIGHTNESS[1]) & (chroma >= _CHROMA[0]) & (chroma <= _CHROMA[1])
    ]
    places = _oklab(candidates) * (_LIGHTNESS_WEIGHT, 1, 1)
    taken = _oklab(np.array([(0, 0, 0), (255, 255, 255), _FIRST], np.uint8)) * (_LIGHTNESS_WEIGHT, 1, 1)
    distance = np.square(places[:, None] - taken).sum(-1).min(1)
    chosen = [np.array(_FIRST, np.uint8)]
    while len(chosen) < MAX_CLASSES:
        farthest = distance.argmax()
        chosen.append(candidates[farthest])
        distance = np.minimum(distance, np.square(places - places[farthest]).sum(-1))
    return np.stack(chosen)


def _oklab(colors: UInt8[np.ndarray, "n 3"]) -> np.ndarray:
    """Returns Oklab coordinates (n, 3): lightness and two axes of hue. Distances are roughly perceptual."""
    values = colors / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ np.transpose(_TO_CONES)) @ np.transpose(_TO_OKLAB)
