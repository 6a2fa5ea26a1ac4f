"""Label maps: masks, which are image files of class numbers, and the labels that they stand for."""

import numpy as np

from paca_jax.data.codecs.images import load_image, upright
from paca_jax.errors import UserError

# The label of pixels that neither losses nor metrics count. It cannot be the label of a class.
IGNORED = 255

# Pillow's modes whose pixels are one whole number: 1 bit, 8 bits, palette indices, 16 bits (of either byte order) and 32 bits.
_INDEX_MODES = ("1", "L", "P", "I;16", "I;16B", "I")
# A message lists at most this many wrong values.
_NAMED_VALUES = 5


class MaskError(UserError):
    """A mask that does not fit its image or the classes, or is not an index map."""


def decode_mask(data: bytes) -> np.ndarray:
    """Decodes the file of a mask to its raw values, turned upright as by `decode_image`.

    Args:
        data: the bytes of a PNG (or other lossless) file with one channel. With a palette, the indices count, not the colors.

    Returns:
        (H, W) uint8, or int32 for files with more than 8 bits.

    Raises:
        ImageError: (a UserError) the bytes are not an image, or a damaged one.
        MaskError: (a UserError) the pixels are colors, or numbers with transparency.
    """
    image = upright(load_image(data))
    if image.mode not in _INDEX_MODES:
        raise MaskError(
            f"Expected the mask to be an index map, one channel whose values are class numbers, got an image of Pillow's mode "
            f"{image.mode!r}. Give class numbers rather than colors or instances (of ADE20K those of ADEChallengeData2016)."
        )
    pixels = np.asarray(image)
    return pixels.astype(np.uint8 if pixels.itemsize == 1 else np.int32, copy=False)


def to_labels(values: np.ndarray, num_classes: int, ignore_zero: bool = False) -> np.ndarray:
    """Converts the raw values of a mask to labels.

    Args:
        values: (H, W) whole numbers, as from `decode_mask`.
        num_classes: the number of classes, at most 255.
        ignore_zero: whether class c is stored as c + 1, and no class as 0, as in ADE20K.

    Returns:
        (H, W) uint8: 0 to num_classes - 1, or `IGNORED`, which is 255 in every mask.

    Raises:
        MaskError: (a UserError) other values occur.
    """
    first = int(ignore_zero)
    ignored = (values == IGNORED) | (values == 0) if ignore_zero else values == IGNORED
    wrong = ~ignored & ((values < first) | (values >= num_classes + first))
    if wrong.any():
        raise MaskError(_wrong_values(np.unique(values[wrong]), num_classes, ignore_zero))
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
        ImageError: (a UserError) the bytes are not an image, or a damaged one.
        MaskError: (a UserError) the mask is not an index map, has another size than the image, or has values that are not
            classes.
    """
    values = decode_mask(data)
    if values.shape != tuple(size):
        height, width = values.shape
        raise MaskError(
            f"Expected a mask as large as its upright image, {size[1]}x{size[0]} (width x height), got one of "
            f"{width}x{height}. Make them alike."
        )
    return to_labels(values, num_classes, ignore_zero)


def _wrong_values(wrong: np.ndarray, num_classes: int, ignore_zero: bool) -> str:
    named = ", ".join(str(value) for value in wrong[:_NAMED_VALUES]) + (" and others" if len(wrong) > _NAMED_VALUES else "")
    if ignore_zero:
        known = f"1 to {num_classes}, 0 and {IGNORED} for no class"
        advice = "Correct the mask or the number of classes"
    else:
        known = f"0 to {num_classes - 1}, {IGNORED} for no class"
        advice = "Correct the mask or the number of classes"
        if wrong.tolist() == [num_classes]:
            advice = "If 0 stands for no class and classes are numbered from 1, set ignore_zero=True"
    return f"Expected the values of {num_classes} classes in the mask ({known}), got {named}. {advice}."
