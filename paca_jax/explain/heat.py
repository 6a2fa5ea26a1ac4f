"""Heat maps drawn over a picture."""

import numpy as np
from jaxtyping import Float
from PIL import Image

from paca_jax.errors import UserError
from paca_jax.explain.checks import REAL, checked_array, rgb

# Evenly spaced, from the smallest to the largest weight: violet, magenta, orange, yellow. Lightness increases throughout, so
# the order is visible without the hues.
_HEX = "741f80 932876 b5346a d14650 e86636 f78f1f facb37 fcf8a5"
COLORS = np.array([tuple(bytes.fromhex(color)) for color in _HEX.split()], np.float32)
# The picture below is gray, from the first level for black to the second for white: never black, and never as bright as the
# colors of much weight.
_DIM = (48, 132)
# Opacity of the colors at the largest weight; at the smallest it is 0, so that patches of little weight show the picture alone.
_OPACITY = 0.92


def color_map(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """Returns red, green and blue, 0 to 255, of values from 0 (least) to 1 (most)."""
    positions = np.linspace(0, 1, len(COLORS))
    return np.stack([np.interp(values, positions, COLORS[:, channel]) for channel in range(3)], axis=-1)


def overlay(picture: Image.Image, heat: Float[np.ndarray, "H W"]) -> Image.Image:
    """Draws a map of weights over a picture.

    Each map is scaled to its own range, so colors of two maps cannot be compared. A uniform map shows the dimmed picture alone.

    Args:
        picture: the picture, in any size and mode; it is drawn in dimmed gray, so that colors and brightness show weights only.
        heat: the weights over the whole picture, finite, resized bicubically to its size.

    Returns:
        An RGB picture of the same size.

    Raises:
        UserError: if `picture` is no Pillow image, has no pixels or is damaged, or `heat` has another shape, is empty, or is
            not finite.
    """
    picture = rgb(picture)
    heat = checked_array("heat", heat, REAL, ("H", "W"))
    with np.errstate(over="ignore"):
        heat = np.asarray(heat, np.float32)
    return overlay_part(picture, heat, heat.shape)


def overlay_part(picture: Image.Image, heat: Float[np.ndarray, "H W"], part: tuple[float, float]) -> Image.Image:
    """Draws the upper left part of a map over a picture, as `overlay` does.

    Args:
        picture: the picture, in RGB.
        heat: the weights of the whole map.
        part: the height and width, in entries of the map, of the part that lies over the picture.

    Raises:
        UserError: if `heat` is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        span = np.ptp(heat)
    if not np.isfinite(span):
        raise UserError(f"Expected heat of finite numbers, got {heat.min()} to {heat.max()}. Correct it.")
    scaled = (heat - heat.min()) / span if span > 0 else np.zeros_like(heat)
    fine = Image.fromarray(scaled).resize(picture.size, Image.Resampling.BICUBIC, box=(0, 0, part[1], part[0]))
    weight = np.clip(np.asarray(fine), 0, 1)
    dark, bright = _DIM
    gray = dark + np.asarray(picture.convert("L"), np.float32)[..., None] * ((bright - dark) / 255)
    opacity = weight[..., None] * _OPACITY
    mixed = gray * (1 - opacity) + color_map(weight) * opacity
    return Image.fromarray(np.round(mixed).astype(np.uint8))
