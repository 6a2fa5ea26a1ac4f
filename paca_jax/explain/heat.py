"""Heat maps drawn over a picture."""

import numpy as np
from jaxtyping import Float
from PIL import Image

# From least to most weight, evenly spaced: dark violet, magenta, orange, yellow. Lightness rises all the way, so that the order
# is seen without the colors, too.
_HEX = "30125c 621876 962874 c73e5c ec623a fb941c facb37 fcf8a5"
COLORS = np.array([tuple(bytes.fromhex(color)) for color in _HEX.split()], np.float32)
# Opacity of the colors where the weight is least and most. What has little weight stays visible as a dim gray picture.
_OPACITY = (0.30, 0.86)
_DIM = 0.75


def color_map(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """Returns red, green and blue, 0 to 255, of values from 0 (least) to 1 (most)."""
    positions = np.linspace(0, 1, len(COLORS))
    return np.stack([np.interp(values, positions, COLORS[:, channel]) for channel in range(3)], axis=-1)


def overlay(picture: Image.Image, heat: Float[np.ndarray, "H W"]) -> Image.Image:
    """Draws a map of weights over a picture.

    Each map is scaled to its own range, least to most, so that colors of two maps do not compare. A map without any range
    (a uniform one) is drawn as least everywhere.

    Args:
        picture: any size and mode; it becomes gray, so that all color is weight.
        heat: the weights, over the whole picture; enlarged to its size bicubically.

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
