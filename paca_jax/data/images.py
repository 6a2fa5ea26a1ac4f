"""Image files to pixels, with Pillow."""

import io
import struct

import numpy as np
from PIL import Image

from paca_jax.errors import UserError

# EXIF's orientation tag to what brings the picture upright.
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
# The entries of `image.info` of which Pillow can read an orientation.
_METADATA = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
# What Pillow raises for damaged files: its own errors and those of its parsers.
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

    EXIF's orientation is applied; unreadable metadata counts as upright. Transparency is laid over white. 16-bit pixels keep
    their high byte.

    Args:
      data: the bytes of a JPEG, PNG, WebP, ... file.
      channels: 3 for colour, 1 for grey.

    Returns:
      A Pillow image of mode "RGB" or "L".

    Raises:
      ImageError: (a UserError) the bytes are no image, or a damaged one.
      UserError: `channels` is neither 1 nor 3.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_formats(data))
        image.load()
    except _DAMAGED as error:
        raise ImageError(
            f"Expected an image file, Pillow cannot decode these {len(data)} bytes ({' '.join(str(error).split())}); "
            "replace the file."
        ) from error
    return convert_image(image, channels)


def convert_image(image: Image.Image, channels: int) -> Image.Image:
    """Brings a Pillow image of any mode upright and to colour or grey, as `decode_image` does.

    Args:
      image: any Pillow image.
      channels: 3 for colour, 1 for grey.

    Returns:
      An image of mode "RGB" or "L"; the argument itself where nothing was to do.

    Raises:
      ImageError: the mode has no such conversion.
      UserError: `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise UserError(f"Expected 1 (grey) or 3 (colour) image channels, got {channels!r}; correct image_channels.")
    mode = "RGB" if channels == 3 else "L"
    if any(key in image.info for key in _METADATA) or image.format not in (None, "PNG", "JPEG"):
        image = _upright(image)
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
            f"Expected an image of grey or colour pixels, got one of Pillow's mode {image.mode!r}; convert the file to 8 bits."
        ) from error


def _formats(data: bytes) -> tuple[str, ...] | None:
    """The format that the first bytes tell, to spare Pillow its search; None for a rarer one."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return ("PNG",)
    return ("JPEG", "MPO") if data[:3] == b"\xff\xd8\xff" else None


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except _DAMAGED:  # the metadata are damaged, the pixels are not
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Keeps the high byte of 16-bit grey, as Pillow does for 16-bit colour; its own conversion of grey would clip."""
    return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
