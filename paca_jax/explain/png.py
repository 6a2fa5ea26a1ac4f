"""Encoding of pictures."""

import io

from PIL import Image

from paca_jax.errors import UserError
from paca_jax.explain.checks import check_picture


def to_png(image: Image.Image) -> bytes:
    """Returns a picture as the bytes of a PNG file.

    Args:
        image: the picture, in a mode that PNG has, such as RGB, RGBA, gray or a palette.

    Raises:
        UserError: if it is no Pillow image, has no pixels, is damaged, or PNG does not have its mode.
    """
    check_picture(image)
    buffer = io.BytesIO()
    try:
        image.save(buffer, format="PNG", optimize=True)
    except OSError as error:  # nothing else can fail: the picture is decoded, and the file is in memory
        raise UserError(f"Expected a picture of a mode that PNG has, got {image.mode!r}. Convert it to RGB.") from error
    return buffer.getvalue()
