"""Masks: image files whose pixels are class numbers, and the labels that a loss takes."""

import numpy as np

from paca_jax.data.codecs.images import load_image, upright
from paca_jax.errors import UserError

# The label of pixels that neither losses nor metrics count; no class may have it.
IGNORED = 255

# The modes of Pillow whose pixels are one whole number: bits, bytes, indices of a palette, 16 bits (in files of either byte
# order) and 32 bits.
_INDEX_MODES = ("1", "L", "P", "I;16", "I;16B", "I")
# Wrong values that a message names at most.
_NAMED_VALUES = 5


class MaskError(UserError):
    """A mask that does not fit its image or the classes, or is no index map."""


def decode_mask(data: bytes) -> np.ndarray:
    """Decodes the file of a mask to its raw values, upright as `decode_image` turns images.

    Args:
      data: the bytes of a PNG (or another lossless) file with one channel. Of a palette the indices count, not the colors.

    Returns:
      (H, W) uint8; int32 of files with more than 8 bits.

    Raises:
      ImageError: (a UserError) the bytes are no image, or a damaged one.
      MaskError: (a UserError) the pixels are colors, or numbers with transparency.
    """
    image = upright(load_image(data))
    if image.mode not in _INDEX_MODES:
        raise MaskError(
            f"Expected the mask to be an index map, one channel whose values are class numbers, got an image of Pillow's mode "
            f"{image.mode!r}; give class numbers rather than colors or instances (of ADE20K those of ADEChallengeData2016)."
        )
    pixels = np.asarray(image)
    return pixels.astype(np.uint8 if pixels.itemsize == 1 else np.int32, copy=False)


def to_labels(values: np.ndarray, num_classes: int, ignore_zero: bool = False) -> np.ndarray:
    """Turns the raw values of a mask into labels.

    Args:
      values: (H, W) whole numbers, as of `decode_mask`.
      num_classes: the number of classes, at most 255.
      ignore_zero: whether 0 stands for no class and class c is written as c + 1, as in ADE20K.

    Returns:
      (H, W) uint8: 0 to num_classes - 1, or `IGNORED`, which 255 stands for in every mask.

    Raises:
      MaskError: (a UserError) other values occur.
    """
    first = int(ignore_zero)
    ignored = (values == IGNORED) | (values == 0) if ignore_zero else values == IGNORED
    wrong = ~ignored & ((values < first) | (values >= num_classes + first))
    if wrong.any():
        raise MaskError(_told(np.unique(values[wrong]), num_classes, ignore_zero))
    return np.where(ignored, IGNORED, values - first).astype(np.uint8)


def decode_labels(data: bytes, size: tuple[int, int], num_classes: int, ignore_zero: bool = False) -> np.ndarray:
    """Decodes the mask of an image to labels.

    Args:
      data: as for `decode_mask`.
      size: (height, width) in pixels of the upright image.
      num_classes: as for `to_labels`.
      ignore_zero: as for `to_labels`.

    Returns:
      (H, W) uint8 labels; see `to_labels`.

    Raises:
      ImageError: (a UserError) the bytes are no image, or a damaged one.
      MaskError: (a UserError) the mask is no index map, is of another size than the image, or has values that are no class.
    """
    values = decode_mask(data)
    if values.shape != tuple(size):
        height, width = values.shape
        raise MaskError(
            f"Expected a mask as large as its upright image, {size[1]}x{size[0]} (width x height), got one of "
            f"{width}x{height}; make them alike."
        )
    return to_labels(values, num_classes, ignore_zero)


def _told(wrong: np.ndarray, num_classes: int, ignore_zero: bool) -> str:
    named = ", ".join(str(value) for value in wrong[:_NAMED_VALUES]) + (", ..." if len(wrong) > _NAMED_VALUES else "")
    if ignore_zero:
        known = f"1 to {num_classes}, 0 and {IGNORED} for no class"
        advice = "correct the mask or the number of classes"
    else:
        known = f"0 to {num_classes - 1}, {IGNORED} for no class"
        advice = "correct the mask or the number of classes"
        if wrong.tolist() == [num_classes]:
            advice = "where 0 stands for no class and the classes count from 1, set ignore_zero=True"
    return f"Expected the values of {num_classes} classes in the mask ({known}), got {named}; {advice}."
