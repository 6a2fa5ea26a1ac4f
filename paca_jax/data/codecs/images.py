"""Decoding of image files with Pillow."""

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from paca_jax.errors import UserError, summary

# The transpositions that turn a picture upright, by the value of EXIF's orientation tag.
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The transpositions that swap width and height.
_ON_SIDE = (Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90)
# The entries of `image.info` in which Pillow finds an orientation.
_METADATA = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
# The same in a PNG file, where they may also follow the pixels.
_PNG_METADATA = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
# Text of more bytes does not hold an orientation.
_LONG_TEXT = 1 << 16
# Tags of TIFF: the bits of a sample, and whether 0 is white.
_BITS_TAG, _PHOTOMETRIC_TAG = 258, 262

# The formats whose pixels of Pillow's mode "I" have 16 bits.
_SIXTEEN_BITS_IN_MODE_I = ("PNG", "PPM")

# The environment variable that raises Pillow's limit on the pixels of an image.
MAX_PIXELS = "PACA_JAX_MAX_IMAGE_PIXELS"


class ImageError(UserError):
    """An image that Pillow cannot decode, because it is damaged or no image."""


class ImageKindError(UserError):
    """An intact image that is not read: it is too large, or its pixels have no known range or no conversion."""


def decode_image(data: bytes, channels: int) -> Image.Image:
    """Decodes an image file.

    EXIF's orientation is applied; unreadable metadata means upright. Transparent images are composited over white. 16-bit
    pixels keep their high byte. Of an animation the first frame counts.

    Args:
        data: the bytes of a JPEG, PNG, WebP, ... file.
        channels: 3 for color, 1 for gray.

    Returns:
        A Pillow image of mode "RGB" or "L".

    Raises:
        ImageError: (a UserError) the bytes are not an image, or a damaged one.
        ImageKindError: (a UserError) the image is too large, or of a mode that `convert_image` refuses.
        UserError: `channels` is neither 1 nor 3.
    """
    return convert_image(load_image(data), channels)


def load_image(data: bytes, check: Callable[[ImageFile.ImageFile], None] | None = None) -> Image.Image:
    """Decodes an image file to a Pillow image of the file's own mode, without turning it upright.

    Args:
        data: the bytes of a JPEG, PNG, WebP, ... file.
        check: raises a `UserError` if it refuses an image of which only the header was read.

    Raises:
        ImageError: (a UserError) the bytes are not an image, or a damaged one.
        ImageKindError: (a UserError) the image is too large.
    """
    with _image_errors(data):
        image = _open(data)
        if check is not None:
            check(image)
        image.load()
        return image


def image_size(data: bytes) -> tuple[int, int]:
    """Returns the (height, width) in pixels of the image that `decode_image` makes of a file.

    Only the header of JPEG and most PNG files is read; other files are decoded.

    Args:
        data: the bytes of a JPEG, PNG, WebP, ... file.

    Raises:
        ImageError: (a UserError) the bytes do not begin like an image.
        ImageKindError: (a UserError) the image is too large.
    """
    with _image_errors(data):
        image = _open(data)
        if image.format == "PNG":
            header_suffices = not any(key in data for key in _PNG_METADATA)
        else:
            header_suffices = image.format in ("JPEG", "MPO")
        if not header_suffices:
            image.load()
    return image.size if _transposition(image) in _ON_SIDE else image.size[::-1]


def convert_image(image: Image.Image, channels: int) -> Image.Image:
    """Turns a Pillow image of any mode upright and converts it to color or gray, as `decode_image` does.

    Args:
        image: any Pillow image; one that `PIL.Image.open` has not decoded yet is decoded.
        channels: 3 for color, 1 for gray.

    Returns:
        An image of mode "RGB" or "L"; the argument itself if there is nothing to do.

    Raises:
        ImageError: (a UserError) the file of the image is damaged.
        ImageKindError: (a UserError) the pixels are floating point numbers or 32-bit integers, which have no known range, or
            the mode has no such conversion, one color of 16 bits stands for transparency, or there are no pixels.
        UserError: `channels` is neither 1 nor 3, or `image` no Pillow image.
    """
    if not isinstance(channels, int) or channels not in (1, 3):
        raise UserError(f"Expected 1 (gray) or 3 (color) image channels, got {channels!r}. Correct image_channels.")
    if not isinstance(image, Image.Image):
        raise UserError(f"Expected a Pillow image, got a value of type {type(image).__name__}. Decode the file first.")
    if 0 in image.size:
        raise ImageKindError(
            f"Expected an image with pixels, got one of {image.width}x{image.height} (width x height). Leave it out."
        )
    mode = "RGB" if channels == 3 else "L"
    if image.mode == "F" or (image.mode == "I" and image.format not in _SIXTEEN_BITS_IN_MODE_I):
        raise ImageKindError(
            f"Expected an image of 8 or 16 bits, got one of Pillow's mode {image.mode!r}, whose numbers have no range from "
            "black to white. Scale them to 0 to 255 and save them as uint8."
        )
    with _image_errors():
        image.load()
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:
        raise ImageKindError(
            f"Expected a transparent color of 8 bits, got {key}, with which no pixel can be compared once it has 8 bits. Save "
            "the image with an alpha channel."
        )
    deep = _Deep.of(image) if image.mode.startswith("I") else None
    image = upright(image)
    if image.mode == mode and "transparency" not in image.info:
        return image
    try:
        if deep is not None:
            image = deep.to_8_bits(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        if image.mode == "LAB":  # has no conversion to gray
            image = image.convert("RGB")
        return image.convert(mode)
    except ValueError as error:
        raise ImageKindError(
            f"Expected an image of gray or color pixels, got one of Pillow's mode {image.mode!r}. Convert the file to 8 bits."
        ) from error


def upright(image: Image.Image) -> Image.Image:
    """Applies EXIF's orientation to a Pillow image; unreadable metadata means upright.

    A turned image loses its metadata, so that it is not turned again.
    """
    transposition = _transposition(image)
    if transposition is None:
        return image
    turned = image.transpose(transposition)
    for key in _METADATA:
        turned.info.pop(key, None)
    return turned


@contextmanager
def _image_errors(data: bytes | None = None) -> Iterator[None]:
    """Turns the errors that Pillow raises for a damaged or a huge file into `ImageError` and `ImageKindError`."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageKindError(
            f"Expected an image within Pillow's limit of pixels, got: {error} If you trust the file, set the environment "
            f"variable {MAX_PIXELS} to at least its number of pixels; else make it smaller."
        ) from error
    except Exception as error:  # Pillow's parsers raise whatever a damaged file leads them to
        reason = re.sub(r"\s*<[^>]* at 0x[0-9a-f]+>", "", summary(error))
        content = "this image" if data is None else f"these {len(data)} bytes"
        raise ImageError(f"Expected an image file, Pillow cannot decode {content} ({reason}). Replace the file.") from error


def _open(data: bytes) -> ImageFile.ImageFile:
    """Reads the header of an image file."""
    if not isinstance(data, bytes | bytearray):
        raise UserError(f"Expected the bytes of an image file, got a value of type {type(data).__name__}. Read the file first.")
    limit = os.environ.get(MAX_PIXELS)
    if limit is not None:
        if not limit.isdecimal() or int(limit) == 0:
            raise UserError(f"Expected {MAX_PIXELS} to be a whole number of pixels, got {limit!r}. Correct it or unset it.")
        Image.MAX_IMAGE_PIXELS = int(limit)
    formats = _formats(data)
    return Image.open(io.BytesIO(_without_long_text(data) if formats == ("PNG",) else data), formats=formats)


def _without_long_text(png: bytes) -> bytes:
    """Returns a PNG file without its comments, whose length Pillow limits; those that may hold an orientation stay."""
    if not any(kind in png for kind in _PNG_TEXT):
        return png
    kept, start = [png[:8]], 8
    while start < len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4])
        kind, content = png[start + 4 : start + 8], png[start + 8 : end]
        if kind not in _PNG_TEXT or (content.startswith(_PNG_METADATA) and len(content) <= _LONG_TEXT):
            kept.append(png[start:end])
        start = end
    return b"".join(kept)


def _formats(data: bytes) -> tuple[str, ...] | None:
    """Returns the format that the first bytes show, to save Pillow its search; None for a rarer one."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return ("PNG",)
    return ("JPEG", "MPO") if data[:3] == b"\xff\xd8\xff" else None


def _transposition(image: Image.Image) -> Image.Transpose | None:
    """Returns the transposition that turns a picture upright; None if it is upright."""
    if image.format in (None, "PNG", "JPEG") and not any(key in image.info for key in _METADATA):
        return None
    try:
        with _image_errors():
            return _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except ImageError:  # the metadata is damaged, the pixels are not
        return None


class _Deep(NamedTuple):
    """How a gray image of more than 8 bits stores its pixels.

    Attributes:
        bits: the bits of a pixel.
        white_is_zero: whether 0 is white, which Pillow minds only for fewer bits.
    """

    bits: int
    white_is_zero: bool

    @classmethod
    def of(cls, image: Image.Image) -> "_Deep":
        """Reads the storage of an image from its file's tags."""
        tags = getattr(image, "tag_v2", {})  # of TIFF
        return cls(tags.get(_BITS_TAG, (16,))[0], tags.get(_PHOTOMETRIC_TAG) == 0)

    def to_8_bits(self, image: Image.Image) -> Image.Image:
        """Keeps the high byte, as Pillow does for 16-bit color; Pillow's conversion of gray would clip."""
        values = np.asarray(image)
        high = (values >> (self.bits - 8)).astype(np.uint8)
        gray = Image.fromarray(255 - high if self.white_is_zero else high)
        if "transparency" in image.info:
            gray.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
        return gray
