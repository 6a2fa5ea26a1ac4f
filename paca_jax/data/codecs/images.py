"""Decoding of image files with Pillow."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from paca_jax.errors import UserError

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
# The errors that Pillow raises for damaged files: its own and those of its parsers.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    OverflowError,
    EOFError,
    IndexError,
    KeyError,
    struct.error,
    Image.DecompressionBombError,
)


class ImageError(UserError):
    """An image that Pillow cannot decode."""


def decode_image(data: bytes, channels: int) -> Image.Image:
    """Decodes an image file.

    EXIF's orientation is applied; unreadable metadata means upright. Transparent images are composited over white. 16-bit
    pixels keep their high byte.

    Args:
        data: the bytes of a JPEG, PNG, WebP, ... file.
        channels: 3 for color, 1 for gray.

    Returns:
        A Pillow image of mode "RGB" or "L".

    Raises:
        ImageError: (a UserError) the bytes are not an image, or a damaged one.
        UserError: `channels` is neither 1 nor 3.
    """
    return convert_image(load_image(data), channels)


def load_image(data: bytes) -> Image.Image:
    """Decodes an image file to a Pillow image of the file's own mode, without turning it upright.

    Args:
        data: the bytes of a JPEG, PNG, WebP, ... file.

    Raises:
        ImageError: (a UserError) the bytes are not an image, or a damaged one.
    """
    with _image_errors(data):
        image = _open(data)
        image.load()
        return image


def image_size(data: bytes) -> tuple[int, int]:
    """Returns the (height, width) in pixels of the image that `decode_image` makes of a file.

    Only the header of JPEG and most PNG files is read; other files are decoded.

    Args:
        data: the bytes of a JPEG, PNG, WebP, ... file.

    Raises:
        ImageError: (a UserError) the bytes do not begin like an image.
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
        image: any Pillow image.
        channels: 3 for color, 1 for gray.

    Returns:
        An image of mode "RGB" or "L"; the argument itself if there is nothing to do.

    Raises:
        ImageError: the mode has no such conversion.
        UserError: `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise UserError(f"Expected 1 (gray) or 3 (color) image channels, got {channels!r}. Correct image_channels.")
    mode = "RGB" if channels == 3 else "L"
    image = upright(image)
    if image.mode == mode and "transparency" not in image.info:
        return image
    try:
        if image.mode.startswith("I"):
            image = _to_8_bits(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return image.convert(mode)
    except ValueError as error:
        raise ImageError(
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
def _image_errors(data: bytes) -> Iterator[None]:
    """Turns the errors that Pillow raises for a damaged file into an `ImageError`."""
    try:
        yield
    except _DAMAGED as error:
        raise ImageError(
            f"Expected an image file, Pillow cannot decode these {len(data)} bytes ({' '.join(str(error).split())}). "
            "Replace the file."
        ) from error


def _open(data: bytes) -> Image.Image:
    """Reads the header of an image file."""
    return Image.open(io.BytesIO(data), formats=_formats(data))


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
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except _DAMAGED:  # the metadata is damaged, the pixels are not
        return None


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Keeps the high byte of 16-bit gray, as Pillow does for 16-bit color; Pillow's conversion of gray would clip."""
    return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
