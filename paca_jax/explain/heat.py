"""Heat maps drawn over a picture."""

import numpy as np
from jaxtyping import Float
from PIL import Image

from paca_jax.errors import UserError
from paca_jax.explain.checks import REAL, checked_array, rgb

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
        heat: the weights over the whole picture, finite, resized bicubically to its size.

    Returns:
        An RGB picture of the same size.

    Raises:
        UserError: if `picture` is no Pillow image, has no pixels or is damaged, or `heat` has another shape, is empty, or is
            not finite.
    """
    gray = np.asarray(rgb(picture).convert("L"), np.float32)[..., None] * _DIM
    heat = checked_array("heat", heat, REAL, ("H", "W"))
    with np.errstate(over="ignore", invalid="ignore"):
        heat = np.asarray(heat, np.float32)
        span = np.ptp(heat)
    if not np.isfinite(span):
        raise UserError(f"Expected heat of finite numbers, got {heat.min()} to {heat.max()}. Correct it.")
    scaled = (heat - heat.min()) / span if span > 0 else np.zeros_like(heat)
    fine = Image.fromarray(scaled).resize(picture.size, Image.Resampling.BICUBIC)
    weight = np.clip(np.asarray(fine), 0, 1)
    least, most = _OPACITY
    opacity = (least + (most - least) * weight)[..., None]
    mixed = gray * (1 - opacity) + color_map(weight) * opacity
    return Image.fromarray(np.round(mixed).astype(np.uint8))
