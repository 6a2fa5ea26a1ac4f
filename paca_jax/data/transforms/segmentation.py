"""Transforms for segmentation: random crops for training, whole pictures at several scales for evaluation.

Both keep the proportions: at scale s, a picture becomes as large as fits into a box of int(s * long_side) by
int(s * short_side) pixels; see `resize_geometry`.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from paca_jax.data.codecs.images import decode_image
from paca_jax.data.codecs.label_maps import IGNORED, MaskError, decode_labels
from paca_jax.data.transforms.padding import pad_picture, round_up
from paca_jax.data.transforms.photometric import photometric_distortion
from paca_jax.data.transforms.resampling import Box, bilinear, nearest
from paca_jax.data.transforms.resize_geometry import (
    check_box_and_channels,
    check_memory,
    check_whole,
    fitted_size,
    fitting_scale,
)
from paca_jax.errors import UserError
from paca_jax.fields import check_types

# How often a crop with too much of one class is drawn again.
_ATTEMPTS = 10


class Group(NamedTuple):
    """The padded shapes of pictures of similar proportions, which can go into one batch.

    Attributes:
        height: height of the padded picture at scale 1, in pixels.
        width: width of the padded picture at scale 1, in pixels.
        factor: a power of two; the padded label is this many times as high and wide.
    """

    height: int
    width: int
    factor: int


@dataclass(frozen=True)
class SegmentationTrainTransform:
    """A random size, a random crop, a horizontal flip with probability one half, and photometric distortion.

    The image is resized bilinearly without antialiasing (as in OpenCV), the mask to the nearest pixel with the same pixel
    centers. A crop in which one class has a fraction of `category_limit` or more of the labeled pixels is drawn again, up to
    ten times. If the picture is smaller than the crop, it is padded on the right and at the bottom: the image with the bytes
    nearest to ImageNet's mean (which normalize to almost 0), the labels with 255.

    Attributes:
        crop_size: the side of the result in pixels.
        num_classes: the number of classes, at most 255.
        channels: 3 for color, 1 for gray.
        short_side: the short side of the box at scale 1, in pixels.
        long_side: the long side of the box at scale 1, in pixels.
        resize_range: the smallest and the largest scale; it is drawn uniformly.
        category_limit: in (0, 1]; 1 accepts every crop.
        flip: whether to flip.
        photometric: whether to distort colors; see `photometric_distortion`.
        ignore_zero: whether masks store class c as c + 1, and no class as 0, as in ADE20K.
        mask_feature: the feature of an example that holds its mask.

    Raises:
        UserError: a value is out of range.
    """

    crop_size: int
    num_classes: int
    channels: int = 3
    short_side: int = 512
    long_side: int = 2048
    resize_range: tuple[float, float] = (0.5, 2.0)
    category_limit: float = 0.75
    flip: bool = True
    photometric: bool = True
    ignore_zero: bool = False
    mask_feature: str = "mask"

    def __post_init__(self) -> None:
        check_types(self)
        check_whole("crop_size", self.crop_size)
        _check_common(self)
        if len(self.resize_range) != 2 or not 0 < self.resize_range[0] <= self.resize_range[1] < math.inf:
            raise UserError(f"Expected resize_range to be two numbers, 0 < low <= high, got {self.resize_range}. Correct it.")
        if not 0 < self.category_limit <= 1:
            raise UserError(f"Expected category_limit to be above 0 and at most 1, got {self.category_limit}. Correct it.")

    def __call__(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Decodes and augments one example.

        Args:
            example: {"image": bytes of an image file, the mask feature: bytes of an index map}.
            rng: decides everything that is random; used only during the call.

        Returns:
            {"image": (S, S, C) uint8; "label": (S, S) uint8, 255 for pixels that do not count}.

        Raises:
            ImageError: (a UserError) the image or the mask cannot be decoded.
            MaskError: (a UserError) the mask is not an index map, or does not fit the image or the classes.
        """
        pixels, labels = _decode(self, example)
        check_memory(labels.shape, (self.crop_size, self.crop_size, self.channels))
        size = fitted_size(labels.shape, *_sides(rng.uniform(*self.resize_range), self.short_side, self.long_side))
        box = self._box(size, rng)
        for _ in range(_ATTEMPTS if self.category_limit < 1 else 0):
            if self._is_mixed(nearest(labels, size, box)):
                break
            box = self._box(size, rng)
        pixels, labels = bilinear(pixels, size, box), nearest(labels, size, box)
        if self.flip and rng.random() < 0.5:
            pixels, labels = pixels[:, ::-1], labels[:, ::-1]
        if self.photometric:
            pixels = photometric_distortion(pixels, rng)
        shape = (self.crop_size, self.crop_size)
        return {"image": pad_picture(pixels, shape), "label": _pad_labels(labels, shape)}

    def _box(self, size: tuple[int, int], rng: np.random.Generator) -> Box:
        """Draws a crop of a resized picture."""
        height, width = (min(self.crop_size, length) for length in size)
        return int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1)), height, width

    def _is_mixed(self, labels: UInt8[np.ndarray, "h w"]) -> bool:
        """Returns whether a crop shows several classes, and not too much of any."""
        counts = np.bincount(labels.ravel(), minlength=IGNORED + 1)[:IGNORED]
        return bool(np.count_nonzero(counts) > 1 and counts.max() < self.category_limit * counts.sum())


@dataclass(frozen=True)
class SegmentationEvalTransform:
    """Whole pictures at one or several scales, and the labels at the picture's own size.

    Pictures are resized bilinearly without antialiasing (as in OpenCV) and padded on the right and at the bottom: the image
    with the bytes nearest to ImageNet's mean, the label with 255. The `group` of the picture's size decides the padded shapes,
    so that pictures of one group can go into one batch.

    Attributes:
        num_classes: the number of classes, at most 255.
        channels: 3 for color, 1 for gray.
        short_side: the short side of the box at scale 1, in pixels.
        long_side: the long side of the box at scale 1, in pixels.
        scales: the scales of the views, in order.
        size_multiple: padded sides are multiples of this many pixels.
        ignore_zero: whether masks store class c as c + 1, and no class as 0, as in ADE20K.
        mask_feature: the feature of an example that holds its mask.

    Raises:
        UserError: a value is out of range.
    """

    num_classes: int
    channels: int = 3
    short_side: int = 512
    long_side: int = 2048
    scales: tuple[float, ...] = (1.0,)
    size_multiple: int = 64
    ignore_zero: bool = False
    mask_feature: str = "mask"

    def __post_init__(self) -> None:
        check_types(self)
        _check_common(self)
        check_whole("size_multiple", self.size_multiple)
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise UserError(f"Expected scales to be one or more numbers above 0, got {self.scales}. Correct them.")

    def __call__(self, example: dict[str, Any], rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Decodes one example.

        Args:
            example: {"image": bytes of an image file, the mask feature: bytes of an index map}.
            rng: unused; both transforms are called alike.

        Returns:
            The result of `view`, and {"label": (height, width) uint8, padded; "label_size": (2,) int32, the picture's own
            height and width}.

        Raises:
            ImageError: (a UserError) the image or the mask cannot be decoded.
            MaskError: (a UserError) the mask is not an index map, or does not fit the image or the classes.
        """
        del rng
        pixels, labels = _decode(self, example)
        return {
            **self._views(pixels),
            "label": _pad_labels(labels, self.label_shape(self.group(labels.shape))),
            "label_size": np.array(labels.shape, np.int32),
        }

    def view(self, image: Image.Image) -> dict[str, np.ndarray]:
        """Returns the views of a picture.

        Args:
            image: a Pillow image of mode "RGB" or, for one channel, "L".

        Returns:
            For the i-th scale {"image_i": (height, width, C) uint8, padded; "size_i": (2,) int32, the height and width in
            pixels of the picture inside it}.
        """
        return self._views(_pixels(image))

    def group(self, size: tuple[int, int]) -> Group:
        """Returns the group of a picture of a (height, width) in pixels; equal groups have equal padded shapes.

        Raises:
            UserError: the picture's view would be too large for memory.
        """
        above, below = fitting_scale(size, self.short_side, self.long_side)
        height, width = (round_up(-(-length * above // below), self.size_multiple) for length in size)
        factor = 1
        while factor * height < size[0] or factor * width < size[1]:
            factor *= 2
        group = Group(height, width, factor)
        check_memory(size, self.label_shape(group))
        return group

    def resized_size(self, size: tuple[int, int], scale: float) -> tuple[int, int]:
        """Returns the (height, width) in pixels, at a scale, of a picture of a (height, width) in pixels."""
        return fitted_size(size, *_sides(scale, self.short_side, self.long_side))

    def padded_shape(self, group: Group, scale: float) -> tuple[int, int]:
        """Returns the (height, width) in pixels that views of a group are padded to at a scale."""
        height, width = (round_up(math.ceil(scale * side), self.size_multiple) for side in (group.height, group.width))
        return height, width

    def label_shape(self, group: Group) -> tuple[int, int]:
        """Returns the (height, width) in pixels that labels of a group are padded to."""
        return group.factor * group.height, group.factor * group.width

    def _views(self, pixels: UInt8[np.ndarray, "H W C"]) -> dict[str, np.ndarray]:
        original = (pixels.shape[0], pixels.shape[1])
        group = self.group(original)
        views = {}
        for index, scale in enumerate(self.scales):
            size = self.resized_size(original, scale)
            shape = self.padded_shape(group, scale)
            check_memory(original, (*shape, pixels.shape[2]))
            views[f"image_{index}"] = pad_picture(bilinear(pixels, size, (0, 0, *size)), shape)
            views[f"size_{index}"] = np.array(size, np.int32)
        return views


def _decode(
    transform: SegmentationTrainTransform | SegmentationEvalTransform, example: dict[str, Any]
) -> tuple[UInt8[np.ndarray, "H W C"], UInt8[np.ndarray, "H W"]]:
    """Returns the pixels and the labels of an example."""
    mask = example[transform.mask_feature]
    if not isinstance(mask, bytes):
        raise MaskError(
            f"Expected the feature {transform.mask_feature!r} to hold the files of masks, got a value of type "
            f"{type(mask).__name__}. Correct dataset.mask_feature."
        )
    pixels = _pixels(decode_image(example["image"], transform.channels))
    size = (pixels.shape[0], pixels.shape[1])
    return pixels, decode_labels(mask, size, transform.num_classes, transform.ignore_zero)


def _pixels(image: Image.Image) -> UInt8[np.ndarray, "H W C"]:
    return np.asarray(image).reshape(image.height, image.width, -1)


def _pad_labels(labels: UInt8[np.ndarray, "h w"], shape: tuple[int, int]) -> UInt8[np.ndarray, "H W"]:
    padded = np.full(shape, IGNORED, np.uint8)
    padded[: labels.shape[0], : labels.shape[1]] = labels
    return padded


def _sides(scale: float, short_side: int, long_side: int) -> tuple[int, int]:
    """Returns the short and the long side of the box at a scale."""
    return int(scale * short_side), int(scale * long_side)


def _check_common(transform: SegmentationTrainTransform | SegmentationEvalTransform) -> None:
    check_whole("num_classes", transform.num_classes)
    check_box_and_channels(transform.short_side, transform.long_side, transform.channels)
    if transform.num_classes > IGNORED:
        raise UserError(f"Expected num_classes to be at most {IGNORED}, got {transform.num_classes}. Correct it.")
