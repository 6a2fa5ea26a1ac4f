"""Transforms of pictures with objects: random sizes and crops for training, whole pictures for evaluation.

Sizes keep the proportions (see `fitting`). Pictures are resized bilinearly without antialiasing (as OpenCV does), and padded on
the right and below, with the bytes nearest to ImageNet's mean, to one of a few shapes whose sides are multiples of 32.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from paca_jax.data.codecs.images import decode_image
from paca_jax.data.loader.bucketing import Shape
from paca_jax.data.sources.objects import ObjectDataset, Objects
from paca_jax.data.transforms.object_masks import packed_masks
from paca_jax.data.transforms.placement import Placement
from paca_jax.data.transforms.random_placement import DETR_CROP, RandomCrop, check_sides, draw_placement
from paca_jax.data.transforms.resize_geometry import (
    check_box_and_channels,
    first_holding,
    fitted_size,
    pad_picture,
    shapes_both_ways,
)
from paca_jax.errors import UserError

# Padded sides are multiples of this, the coarsest stride of the backbone.
_MULTIPLE = 32
# The least rows for objects; there are four times as many wherever these are too few.
_MIN_ROWS = 32
_ROWS_STEP = 4


@dataclass(frozen=True)
class DetectionTrainTransform:
    """A random short side, for half of the pictures after a random crop, and a horizontal flip with probability one half.

    Objects that a crop leaves no part of are dropped; the boxes of others are cut off at its edges. Left out from the start,
    as in mmdetection, are crowds (there ignored without any effect), objects without a mask, boxes below one pixel in width or
    height or outside of the picture, and objects without area. A picture without objects is trained on like any other.

    Attributes:
      short_sides: of the result, in pixels; one of them is drawn.
      long_side: which the result does not exceed.
      bucket_sides: the short sides of the shapes that pictures are padded to; the long ones are in proportion, and every shape
        exists upright and lying. The last one is at least the largest of `short_sides`.
      crop: the crop, None for none.
      flip: whether to flip.
      channels: 3 for color, 1 for gray.

    Raises:
      UserError: a value is out of its range.
    """

    short_sides: tuple[int, ...] = tuple(range(480, 801, 32))
    long_side: int = 1333
    bucket_sides: tuple[int, ...] = (640, 800)
    crop: RandomCrop | None = DETR_CROP
    flip: bool = True
    channels: int = 3

    def __post_init__(self) -> None:
        check_sides(self.short_sides, self.long_side)
        check_box_and_channels(max(self.short_sides), self.long_side, self.channels)
        check_sides(self.bucket_sides, self.long_side)
        if max(self.bucket_sides) < max(self.short_sides):
            raise UserError(
                f"Expected the last of bucket_sides to be {max(self.short_sides)} or more, the largest of short_sides, got "
                f"{self.bucket_sides}; correct them."
            )

    def __call__(self, example: dict[str, Any], rng: np.random.Generator, shape: Shape | None = None) -> dict[str, Any]:
        """Decodes and augments one example.

        Args:
          example: of an `ObjectDataset`.
          rng: decides everything that is random; used during the call only.
          shape: what to pad to, (H, W, N); None for the shape that the example needs. A picture that it does not hold is made
            smaller; the objects must not exceed N.

        Returns:
          {"image": (H, W, C) uint8; "size": (2,) int32, height and width of the picture inside it; "boxes": (N, 4) float32,
          left, top, right, bottom in its pixels; "labels": (N,) int32; "object_valid": (N,) bool, whether a row is an object;
          "masks": (N, H, W / 8) uint8, see `unpack_masks`}. Rows that are no objects are 0.

        Raises:
          ImageError: (a UserError) the image cannot be decoded.
          UserError: the image has another size than its objects were marked in.
        """
        pixels = _decode(example, self.channels)
        objects: Objects = example["objects"]
        size = (pixels.shape[0], pixels.shape[1])
        placement = draw_placement(size, self.short_sides, self.long_side, self.crop, self.flip, rng)
        if shape is None:
            shape = self._shape(placement, int(np.count_nonzero(~objects["crowd"])))
        placement = placement.within(shape[:2])
        boxes = placement.boxes(objects["boxes"])
        is_seen = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        rows = np.flatnonzero(_trainable(objects, size) & is_seen).tolist()
        masks = packed_masks([objects["segments"][row] for row in rows], placement, shape[:2], shape.objects)
        return {
            "image": pad_picture(placement.pixels(pixels), shape[:2]),
            "size": np.array(placement.final, np.int32),
            "boxes": _rows(boxes[rows].astype(np.float32), shape.objects),
            "labels": _rows(objects["labels"][rows], shape.objects),
            "object_valid": np.arange(shape.objects) < len(rows),
            "masks": masks,
        }

    @functools.cached_property
    def padded_shapes(self) -> tuple[tuple[int, int], ...]:
        """The (height, width) in pixels of all shapes that pictures are padded to, the smallest first."""
        most = max(self.bucket_sides)
        return shapes_both_ways(_MULTIPLE, [(side, -(-side * self.long_side // most)) for side in sorted(self.bucket_sides)])

    def shape_of(self, size: tuple[int, int], objects: int, rng: np.random.Generator) -> Shape:
        """Returns the shape that an example needs.

        Args:
          size: (height, width) in pixels of its picture.
          objects: how many it has.
          rng: the stream that `__call__` is given, at its start.
        """
        return self._shape(draw_placement(size, self.short_sides, self.long_side, self.crop, self.flip, rng), objects)

    def _shape(self, placement: Placement, objects: int) -> Shape:
        return Shape(*first_holding(self.padded_shapes, placement.final), object_rows(objects))


@dataclass(frozen=True)
class DetectionShapes:
    """The shape that each example of a data set needs, for `train_batches`.

    Attributes:
      transform: how examples are augmented.
      sizes: (examples, 2), height and width of every picture in pixels.
      num_objects: (examples,), the objects of every picture that are no crowds.
    """

    transform: DetectionTrainTransform
    sizes: np.ndarray
    num_objects: np.ndarray

    @classmethod
    def of(cls, transform: DetectionTrainTransform, dataset: ObjectDataset) -> "DetectionShapes":
        """Returns the shapes of a data set's examples."""
        return cls(transform, dataset.sizes, dataset.num_objects)

    def __call__(self, index: int, rng: np.random.Generator) -> Shape:
        """Returns the shape that example `index` needs when it is augmented from a stream."""
        height, width = self.sizes[index].tolist()
        return self.transform.shape_of((height, width), int(self.num_objects[index]), rng)


@dataclass(frozen=True)
class DetectionEvalTransform:
    """Whole pictures at one scale, padded to one of four shapes: nearly square or not, upright or lying.

    Attributes:
      short_side: of the result, in pixels.
      long_side: which the result does not exceed.
      channels: 3 for color, 1 for gray.

    Raises:
      UserError: a value is out of its range.
    """

    short_side: int = 800
    long_side: int = 1333
    channels: int = 3

    def __post_init__(self) -> None:
        check_box_and_channels(self.short_side, self.long_side, self.channels)

    def __call__(self, example: dict[str, Any], rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Decodes one example.

        Args:
          example: of an `ObjectDataset`.
          rng: not used; there so that both transforms are called alike.

        Returns:
          What `view` returns, and {"image_index": int32, the example's place in its data set}.

        Raises:
          ImageError: (a UserError) the image cannot be decoded.
          UserError: the image has another size than its objects were marked in.
        """
        del rng
        return {**self._view(_decode(example, self.channels)), "image_index": np.int32(example["index"])}

    def view(self, image: Image.Image) -> dict[str, np.ndarray]:
        """Returns the view of a picture.

        Args:
          image: a Pillow image of mode "RGB" or, for one channel, "L".

        Returns:
          {"image": (H, W, C) uint8, padded; "size": (2,) int32, height and width in pixels of the picture inside it;
          "original_size": (2,) int32, those of the picture itself}.
        """
        return self._view(_pixels(image))

    @functools.cached_property
    def padded_shapes(self) -> tuple[tuple[int, int], ...]:
        """The (height, width) in pixels of all shapes that pictures are padded to, the smallest first."""
        nearly_square = min(-(-4 * self.short_side // 3), self.long_side)
        return shapes_both_ways(_MULTIPLE, [(self.short_side, nearly_square), (self.short_side, self.long_side)])

    def group(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the shape that a picture of a (height, width) in pixels is padded to; for the groups of `eval_batches`."""
        return first_holding(self.padded_shapes, fitted_size(size, self.short_side, self.long_side))

    def _view(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        original = (pixels.shape[0], pixels.shape[1])
        size = fitted_size(original, self.short_side, self.long_side)
        return {
            "image": pad_picture(Placement.of_whole(original, size).pixels(pixels), self.group(original)),
            "size": np.array(size, np.int32),
            "original_size": np.array(original, np.int32),
        }


def object_rows(objects: int) -> int:
    """Returns how many rows a number of objects is padded to: 32, 128, 512, ..."""
    rows = _MIN_ROWS
    while rows < objects:
        rows *= _ROWS_STEP
    return rows


def _trainable(objects: Objects, size: tuple[int, int]) -> np.ndarray:
    """Which objects are trained on; `DetectionTrainTransform` tells the rule."""
    left, top, right, bottom = objects["boxes"].T
    width, height = np.minimum(right, size[1]) - np.maximum(left, 0), np.minimum(bottom, size[0]) - np.maximum(top, 0)
    is_large = (right - left >= 1) & (bottom - top >= 1) & (objects["area"] > 0)
    has_mask = np.array([bool(segments) for segments in objects["segments"]], bool)
    return ~objects["crowd"] & is_large & (width > 0) & (height > 0) & has_mask


def _decode(example: dict[str, Any], channels: int) -> np.ndarray:
    """Returns the pixels of an example, having checked that they are those in which its objects were marked."""
    pixels, (height, width) = _pixels(decode_image(example["image"], channels)), example["objects"]["size"]
    if pixels.shape[:2] != (height, width):
        raise UserError(
            f"Expected an image of {width}x{height} (width x height) as its annotations tell, got one of "
            f"{pixels.shape[1]}x{pixels.shape[0]} once it is upright; make them alike."
        )
    return pixels


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).reshape(image.height, image.width, -1)


def _rows(values: np.ndarray, count: int) -> np.ndarray:
    padded = np.zeros((count, *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    return padded
