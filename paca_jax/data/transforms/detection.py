"""Transforms for detection: random sizes and crops for training, whole pictures for evaluation.

Resizing keeps the proportions (see `resize_geometry`). Pictures are resized bilinearly without antialiasing (as in OpenCV), and
padded on the right and at the bottom, with the bytes nearest to ImageNet's mean, to one of a few shapes whose sides are
multiples of 32.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8
from PIL import Image

from paca_jax.data.codecs.images import decode_image
from paca_jax.data.sources.objects import ObjectDataset, Objects, left_out_of_training
from paca_jax.data.transforms.object_masks import packed_masks
from paca_jax.data.transforms.padding import Shape, first_holding, object_rows, pad_picture, shapes_both_ways
from paca_jax.data.transforms.placement import DETR_CROP, Placement, RandomCrop, check_sides, draw_placement
from paca_jax.data.transforms.resize_geometry import check_box_and_channels, check_memory, fitted_size
from paca_jax.errors import UserError
from paca_jax.fields import check_types

# Padded sides are multiples of this, the coarsest stride of the backbone.
_MULTIPLE = 32


@dataclass(frozen=True)
class DetectionTrainTransform:
    """A random crop of half of the pictures, a random short side, and a horizontal flip with probability one half.

    Objects outside the crop are dropped; the boxes of the others are clipped to it. As in mmdetection, the following are always
    left out: crowds (ignored there, without any effect), objects without a mask, boxes below one pixel in width or height or
    outside the picture, and objects without area. A picture without objects is trained on like any other.

    Attributes:
        short_sides: short sides of the result, in pixels; one of them is drawn.
        long_side: the limit of the result's long side, in pixels.
        bucket_sides: the short sides of the shapes that pictures are padded to; the long sides are in proportion, and every
            shape exists in portrait and in landscape. The largest is at least the largest of `short_sides`.
        crop: the random crop, or None.
        flip: whether to flip.
        channels: 3 for color, 1 for gray.

    Raises:
        UserError: a value is out of range.
    """

    short_sides: tuple[int, ...] = tuple(range(480, 801, 32))
    long_side: int = 1333
    bucket_sides: tuple[int, ...] = (640, 800)
    crop: RandomCrop | None = DETR_CROP
    flip: bool = True
    channels: int = 3

    def __post_init__(self) -> None:
        check_types(self)
        check_sides(self.short_sides, self.long_side)
        check_box_and_channels(max(self.short_sides), self.long_side, self.channels)
        check_sides(self.bucket_sides, self.long_side)
        if max(self.bucket_sides) < max(self.short_sides):
            raise UserError(
                f"Expected the largest of bucket_sides to be {max(self.short_sides)} or more, the largest of short_sides, got "
                f"{self.bucket_sides}. Correct them."
            )

    def __call__(self, example: dict[str, Any], rng: np.random.Generator, shape: Shape | None = None) -> dict[str, Any]:
        """Decodes and augments one example.

        Args:
            example: an example of an `ObjectDataset`.
            rng: decides everything that is random; used only during the call.
            shape: the shape to pad to, (H, W, N); None for the shape that the example needs. A picture that does not fit is
                shrunk; there must be at most N objects.

        Returns:
            {"image": (H, W, C) uint8; "size": (2,) int32, height and width of the picture inside it; "boxes": (N, 4) float32,
            left, top, right, bottom in its pixels; "labels": (N,) int32; "object_valid": (N,) bool, whether a row holds an
            object;
            "masks": (N, H, W / 8) uint8, see `unpack_masks`}. Other rows are 0.

        Raises:
            ImageError: (a UserError) the image cannot be decoded.
            UserError: the image has another size than its annotations say.
        """
        pixels = _decode(example, self.channels)
        objects: Objects = example["objects"]
        size = (pixels.shape[0], pixels.shape[1])
        placement = draw_placement(size, self.short_sides, self.long_side, self.crop, self.flip, rng)
        if shape is None:
            shape = self._shape(placement, int(np.count_nonzero(~objects["crowd"])))
        check_memory(size, (*shape[:2], self.channels))
        check_memory(size, (shape.objects, shape.height, shape.width // 8))
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
        """The (height, width) in pixels of all shapes that pictures are padded to, smallest first."""
        most = max(self.bucket_sides)
        return shapes_both_ways(_MULTIPLE, [(side, -(-side * self.long_side // most)) for side in sorted(self.bucket_sides)])

    def shape_of(self, size: tuple[int, int], objects: int, rng: np.random.Generator) -> Shape:
        """Returns the shape that an example needs.

        Args:
            size: (height, width) in pixels of its picture.
            objects: the number of its objects.
            rng: the random stream that `__call__` gets, at its start.
        """
        return self._shape(draw_placement(size, self.short_sides, self.long_side, self.crop, self.flip, rng), objects)

    def _shape(self, placement: Placement, objects: int) -> Shape:
        return Shape(*first_holding(self.padded_shapes, placement.final), object_rows(objects))


@dataclass(frozen=True)
class DetectionShapes:
    """The shape that each example of a data set needs: `shape_of` of `train_batches`.

    Attributes:
        transform: the augmentation of the examples.
        sizes: height and width of every picture in pixels.
        num_objects: the objects of every picture, without crowds.
    """

    transform: DetectionTrainTransform
    sizes: Int[np.ndarray, "examples 2"]
    num_objects: Int[np.ndarray, " examples"]

    @classmethod
    def of(cls, transform: DetectionTrainTransform, dataset: ObjectDataset) -> "DetectionShapes":
        """Returns the shapes of a data set's examples."""
        return cls(transform, dataset.sizes, dataset.num_objects)

    def __call__(self, index: int, rng: np.random.Generator) -> Shape:
        """Returns the shape that example `index` needs when it is augmented from a random stream."""
        height, width = self.sizes[index].tolist()
        return self.transform.shape_of((height, width), int(self.num_objects[index]), rng)


@dataclass(frozen=True)
class DetectionEvalTransform:
    """Whole pictures at one scale, padded to one of four shapes: nearly square or longer, in portrait or landscape.

    Attributes:
        short_side: the limit of the result's short side, in pixels.
        long_side: the limit of the result's long side, in pixels.
        channels: 3 for color, 1 for gray.

    Raises:
        UserError: a value is out of range.
    """

    short_side: int = 800
    long_side: int = 1333
    channels: int = 3

    def __post_init__(self) -> None:
        check_types(self)
        check_box_and_channels(self.short_side, self.long_side, self.channels)

    def __call__(self, example: dict[str, Any], rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Decodes one example.

        Args:
            example: an example of an `ObjectDataset`.
            rng: unused; both transforms are called alike.

        Returns:
            The result of `view`, and {"image_index": int32, the index of the example in its data set}.

        Raises:
            ImageError: (a UserError) the image cannot be decoded.
            UserError: the image has another size than its annotations say.
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
        """The (height, width) in pixels of all shapes that pictures are padded to, smallest first."""
        nearly_square = min(-(-4 * self.short_side // 3), self.long_side)
        return shapes_both_ways(_MULTIPLE, [(self.short_side, nearly_square), (self.short_side, self.long_side)])

    def group(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the shape that a picture of a (height, width) in pixels is padded to; for the groups of `eval_batches`."""
        return first_holding(self.padded_shapes, fitted_size(size, self.short_side, self.long_side))

    def _view(self, pixels: UInt8[np.ndarray, "H W C"]) -> dict[str, np.ndarray]:
        original = (pixels.shape[0], pixels.shape[1])
        size, shape = fitted_size(original, self.short_side, self.long_side), self.group(original)
        check_memory(original, (*shape, self.channels))
        return {
            "image": pad_picture(Placement.of_whole(original, size).pixels(pixels), shape),
            "size": np.array(size, np.int32),
            "original_size": np.array(original, np.int32),
        }


def _trainable(objects: Objects, size: tuple[int, int]) -> Bool[np.ndarray, " n"]:
    """Returns which objects are trained on; see `DetectionTrainTransform`."""
    has_mask = np.array([bool(segments) for segments in objects["segments"]], bool)
    reasons = left_out_of_training(objects["boxes"], objects["area"], has_mask, np.tile(np.array(size), (len(has_mask), 1)))
    return ~objects["crowd"] & ~np.any(list(reasons.values()), 0)


def _decode(example: dict[str, Any], channels: int) -> UInt8[np.ndarray, "H W C"]:
    """Returns the pixels of an example, after checking that their size is that of its annotations."""
    pixels, (height, width) = _pixels(decode_image(example["image"], channels)), example["objects"]["size"]
    if pixels.shape[:2] != (height, width):
        raise UserError(
            f"Expected an image of {width}x{height} (width x height) as its annotations say, got one of "
            f"{pixels.shape[1]}x{pixels.shape[0]} once it is upright. Make them alike."
        )
    return pixels


def _pixels(image: Image.Image) -> UInt8[np.ndarray, "H W C"]:
    return np.asarray(image).reshape(image.height, image.width, -1)


def _rows(values: Shaped[np.ndarray, "n *rest"], count: int) -> Shaped[np.ndarray, "N *rest"]:
    padded = np.zeros((count, *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    return padded
