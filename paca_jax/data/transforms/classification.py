"""Transforms for classification: augmentation for training, and the evaluation view."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance

from paca_jax.data.codecs.images import decode_image
from paca_jax.data.transforms.randaugment import MAX_MAGNITUDE, rand_augment
from paca_jax.data.transforms.resize_geometry import check_memory
from paca_jax.errors import UserError
from paca_jax.fields import check_types

_ATTEMPTS = 10
_MOST_OPERATIONS = 100
# Pixels: pictures that are so elongated that they have more once their short side is resized are cropped as they are resized.
_MOST_RESIZED = 1 << 26
# The enhancements of color jitter; the last one, saturation, does not change gray images.
_JITTERED = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def _pixels(image: Image.Image) -> UInt8[np.ndarray, "H W C"]:
    """Returns the pixels of a Pillow image of mode "RGB" or "L"."""
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, -1)


@dataclass(frozen=True)
class TrainTransform:
    """A random resized crop (bicubic), a horizontal flip with probability one half, color jitter and RandAugment.

    The crop covers a fraction of the area that is uniform in `crop_scale`, at a width-to-height ratio that is log-uniform in
    `crop_ratio`. If ten draws do not fit into the picture, it is the largest center crop with a ratio in `crop_ratio`.

    Attributes:
        image_size: the side of the result in pixels.
        channels: 3 for color, 1 for gray.
        crop_scale: the smallest and the largest fraction of the area, in (0, 1].
        crop_ratio: the smallest and the largest ratio of width to height.
        flip: whether to flip.
        rand_operations: operations that RandAugment draws per image: 2 in ImageNet's recipe, 0 for no RandAugment.
        rand_magnitude: the mean of RandAugment's magnitudes, 0 to 10.
        rand_magnitude_std: their standard deviation.
        color_jitter: the strength s of changes of brightness, contrast and saturation, in random order, each by a factor that
            is uniform in max(0, 1 - s) to 1 + s; 0 for none. For recipes without RandAugment.

    Raises:
        UserError: a value is out of range.
    """

    image_size: int
    channels: int = 3
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    rand_operations: int = 0
    rand_magnitude: float = 9.0
    rand_magnitude_std: float = 0.5
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        check_types(self)
        _check_size_and_channels(self.image_size, self.channels)
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError(f"Expected crop_scale to be two numbers, 0 < low <= high <= 1, got {self.crop_scale}. Correct it.")
        if len(self.crop_ratio) != 2 or not 0 < self.crop_ratio[0] <= self.crop_ratio[1] < math.inf:
            raise UserError(f"Expected crop_ratio to be two numbers, 0 < low <= high, got {self.crop_ratio}. Correct it.")
        if not 0 <= self.rand_operations <= _MOST_OPERATIONS:
            raise UserError(
                f"Expected rand_operations to be from 0 to {_MOST_OPERATIONS}, got {self.rand_operations}. Correct it."
            )
        if not 0 <= self.rand_magnitude <= MAX_MAGNITUDE:
            raise UserError(f"Expected rand_magnitude to be 0 to {MAX_MAGNITUDE:g}, got {self.rand_magnitude}. Correct it.")
        for name in ("rand_magnitude_std", "color_jitter"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"Expected {name} to be 0 or more, got {getattr(self, name)}. Correct it.")

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Decodes and augments one example.

        Args:
            example: {"image": bytes of an image file, "label": int}.
            rng: decides everything that is random; used only during the call.

        Returns:
            {"image": (S, S, C) uint8; "label": int32}.

        Raises:
            ImageError: (a UserError) the image cannot be decoded.
        """
        image = decode_image(example["image"], self.channels)
        check_memory((image.height, image.width), (self.image_size, self.image_size, self.channels))
        image = image.crop(self._box(image.width, image.height, rng))
        image = image.resize((self.image_size, self.image_size), Image.Resampling.BICUBIC)
        if self.flip and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.color_jitter:
            image = _jitter(image, rng, self.color_jitter)
        if self.rand_operations:
            image = rand_augment(image, rng, self.rand_operations, self.rand_magnitude, self.rand_magnitude_std)
        return {"image": _pixels(image), "label": np.int32(example["label"])}

    def _box(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draws a crop as (left, top, right, bottom) in pixels."""
        low, high = self.crop_ratio
        for _ in range(_ATTEMPTS):
            area = width * height * _uniform(rng, *self.crop_scale)
            ratio = math.exp(_uniform(rng, math.log(low), math.log(high)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = int(rng.random() * (width - w + 1)), int(rng.random() * (height - h + 1))
                return left, top, left + w, top + h
        ratio = min(max(width / height, low), high)
        w, h = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


@dataclass(frozen=True)
class EvalTransform:
    """A center crop after the short side is resized to floor(image_size / crop) (bicubic).

    Attributes:
        image_size: the side of the result in pixels.
        channels: 3 for color, 1 for gray.
        crop: the fraction of the short side that the result shows, in (0, 1].

    Raises:
        UserError: a value is out of range.
    """

    image_size: int
    channels: int = 3
    crop: float = 0.9

    def __post_init__(self) -> None:
        check_types(self)
        _check_size_and_channels(self.image_size, self.channels)
        if not 0 < self.crop <= 1:
            raise UserError(f"Expected crop to be above 0 and at most 1, got {self.crop}. Correct it.")

    def __call__(self, example: dict[str, Any], rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Decodes one example.

        Args:
            example: {"image": bytes of an image file, "label": int}.
            rng: unused; both transforms are called alike.

        Returns:
            {"image": (S, S, C) uint8; "label": int32}.

        Raises:
            ImageError: (a UserError) the image cannot be decoded.
        """
        del rng
        image = decode_image(example["image"], self.channels)
        return {"image": self.view(image), "label": np.int32(example["label"])}

    def view(self, image: Image.Image) -> UInt8[np.ndarray, "S S C"]:
        """Returns the view of a Pillow image of mode "RGB" or "L"."""
        short = math.floor(self.image_size / self.crop)
        width, height = image.size
        check_memory((height, width), (self.image_size, self.image_size, self.channels))
        size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
        left, top = round((size[0] - self.image_size) / 2), round((size[1] - self.image_size) / 2)
        if math.prod(size) > _MOST_RESIZED:
            kept = _scaled((left, top, left + self.image_size, top + self.image_size), width / size[0], height / size[1])
            return _pixels(image.resize((self.image_size, self.image_size), Image.Resampling.BICUBIC, kept))
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        if size != (self.image_size, self.image_size):
            image = image.crop((left, top, left + self.image_size, top + self.image_size))
        return _pixels(image)


def _scaled(box: tuple[int, int, int, int], x: float, y: float) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    return left * x, top * y, right * x, bottom * y


def _check_size_and_channels(image_size: int, channels: int) -> None:
    if not isinstance(image_size, int) or image_size < 1:
        raise UserError(f"Expected image_size to be a whole number of pixels above 0, got {image_size!r}. Correct it.")
    if channels not in (1, 3):
        raise UserError(f"Expected 1 (gray) or 3 (color) image channels, got {channels!r}. Correct image_channels.")


def _jitter(image: Image.Image, rng: np.random.Generator, strength: float) -> Image.Image:
    for index in rng.permutation(len(_JITTERED)):
        image = _JITTERED[index](image).enhance(_uniform(rng, max(0.0, 1 - strength), 1 + strength))
    return image


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()
