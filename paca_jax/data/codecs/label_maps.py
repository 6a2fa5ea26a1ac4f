"""Label maps: masks, which are image files of class numbers, and the labels that they stand for."""

import numpy as np
from PIL import ImageFile

from paca_jax.data.codecs.images import load_image, upright
from paca_jax.errors import UserError

# The label of pixels that neither losses nor metrics count. It cannot be the label of a class.
IGNORED = 255

# Pillow's modes whose pixels are one whole number: 1 bit, 8 bits, palette indices, 16 bits (of either byte order) and 32 bits.
_INDEX_MODES = ("1", "L", "P", "I;16", "I;16B", "I")
# The formats of masks, and the compressions of TIFF, that keep every number. Programs that write GIF renumber its palette.
_FORMATS = ("PNG", "TIFF", "BMP", "PPM")
_COMPRESSIONS = (
    *("raw", "packbits", "group3", "group4", "tiff_ccitt"),
    *("tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "zstd", "lzma"),
)
# Pillow's names of the ways to store these modes that it reads number by number. Others are scaled to 8 bits (2 or 4 bits of
# gray), negated (0 is white), or have further channels.
_STORED = (
    *("1", "1;R", "L", "L;R", "P", "P;R", "P;1", "P;1R", "P;2", "P;2R", "P;4", "P;4R"),
    *("I;12", "I;16", "I;16B", "I;16N", "I;16R", "I;16S", "I;16BS", "I;32N", "I;32S", "I;32BS"),
)
# Suffixes of the files of masks.
MASK_SUFFIXES = (".bmp", ".pgm", ".png", ".tif", ".tiff")
_PHOTOMETRIC_TAG, _WHITE_IS_ZERO = 262, 0
# A message lists at most this many wrong values.
_NAMED_VALUES = 5


class MaskError(UserError):
    """A mask that does not fit its image or the classes, or is not an index map."""


def decode_mask(data: bytes) -> np.ndarray:
    """Decodes the file of a mask to its raw values, turned upright as by `decode_image`.

    Args:
        data: the bytes of a PNG, TIFF, BMP or PGM file with one channel and without loss. With a palette, the indices count,
            not the colors.

    Returns:
        (H, W) uint8, or int32 for files with more than 8 bits.

    Raises:
        ImageError: (a UserError) the bytes are not an image, or a damaged one.
        ImageKindError: (a UserError) the image is too large.
        MaskError: (a UserError) the file does not keep numbers as they are, or its pixels are colors, or numbers with
            transparency.
    """
    image = upright(load_image(data, _check_index_map))
    pixels = np.asarray(image)
    return pixels.astype(np.uint8 if pixels.itemsize == 1 else np.int32, copy=False)


def _check_index_map(image: ImageFile.ImageFile) -> None:
    """Refuses an image, of which only the header was read, whose pixels are not the numbers that were written."""
    compression = image.info.get("compression") if image.format == "TIFF" else "raw"
    if image.format not in _FORMATS or compression not in _COMPRESSIONS:
        kind = image.format if image.format != "TIFF" else f"TIFF with compression {compression!r}"
        raise MaskError(
            f"Expected the mask to be in a format that keeps class numbers as they are, got {kind}. Write masks as PNG "
            "from the class numbers: converting a file that was compressed with loss does not bring them back."
        )
    if image.mode not in _INDEX_MODES:
        raise MaskError(
            f"Expected the mask to be an index map, one channel whose values are class numbers, got an image of Pillow's mode "
            f"{image.mode!r}. Give class numbers rather than colors or instances (of ADE20K those of ADEChallengeData2016)."
        )
    codec, *_, arguments = image.tile[0]
    stored, *more = (arguments,) if isinstance(arguments, str) else arguments or (None,)
    white_is_zero = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO
    scaled = codec.startswith("ppm") and more != [IGNORED]  # to a maximum of 255
    if stored not in _STORED or white_is_zero or scaled:
        raise MaskError(
            f"Expected the mask to have class numbers of 1 or 8 bits or more where 0 is black, got {image.format} pixels that "
            "programs scale or negate as they read them (2 or 4 bits of gray, another maximum than 255, or 0 for white). Write "
            "masks as PNG of 8 bits."
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise MaskError(f"Expected the mask to be one picture, got {frames} in one file. Write one file of class numbers.")


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
