"""Heat maps drawn over a picture."""

import numpy as np
from jaxtyping import Float
from PIL import Image

# Evenly spaced, from the smallest to the largest weight: dark violet, magenta, orange, yellow. Lightness increases throughout,
# so the order is visible without the hues.
_HEX = "30125c 621876 962874 c73e5c ec623a fb941c facb37 fcf8a5"
COLORS = np.array([tuple(bytes.fromhex(color)) for color in _HEX.split()], np.float32)
# Opacity of the colors at the smallest and the largest weight. Areas of little weight remain visible as a dim gray picture.
_OPACITY = (0.30, 0.86)
_DIM = 0.75


def color_map(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """Returns red, green and blue, 0 to 255, of values from 0 (least) to 1 (most)."""
    positions = np.linspace(0, 1, len(COLORS))
    return np.stack([np.interp(values, positions, COLORS[:, channel]) for channel in range(3)], axis=-1)


def overlay(picture: Image.Image, heat: Float[np.ndarray, "H W"]) -> Image.Image:
    """Draws a map of weights over a picture.

    Each map is scaled to its own range, so colors of two maps cannot be compared. A uniform map gets the color of the smallest
    weight everywhere.

    Args:
        picture: the picture, in any size and mode; it is drawn in gray, so that colors show weights only.
        heat: the weights over the whole picture, resized bicubically to its size.

    Returns:
        An RGB picture of the same size.
    """
    heat = np.asarray(heat, np.float32)
    span = np.ptp(heat)
    scaled = (heat - heat.min()) / span if span > 0 else np.zeros_like(heat)
    fine = Image.fromarray(scaled).resize(picture.size, Image.Resampling.BICUBIC)
    weight = np.clip(np.asarray(fine), 0, 1)
    gray = np.asarray(picture.convert("L"), np.float32)[..., None] * _DIM
    least, most = _OPACITY
    opacity = (least + (most - least) * weight)[..., None]
    mixed = gray * (1 - opacity) + color_map(weight) * opacity
    return Image.fromarray(np.round(mixed).astype(np.uint8))
