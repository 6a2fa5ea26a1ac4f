"""Encoding of pictures."""

import io

from PIL import Image


def to_png(image: Image.Image) -> bytes:
    """Returns the picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
