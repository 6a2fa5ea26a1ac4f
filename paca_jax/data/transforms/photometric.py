"""Photometric distortion (Liu et al., 2016, SSD): brightness, contrast, saturation and hue, each with probability one half."""

import numpy as np
from jaxtyping import Float32, Num, UInt8

BRIGHTNESS = 32.0  # at most added or subtracted, on a scale of 0 to 255
FACTORS = (0.5, 1.5)  # of contrast and of saturation
HUE_STEPS = 18  # -18 to 17 are drawn
DEGREES_PER_STEP = 2.0  # OpenCV counts the 360 degrees of hue in 180 steps


def photometric_distortion(pixels: UInt8[np.ndarray, "H W C"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W C"]:
    """Distorts a picture at random: brightness, then saturation and hue, with contrast before or after those two.

    Args:
        pixels: the picture; with one channel, neither saturation nor hue changes.
        rng: decides everything that is random.

    Returns:
        The picture, clipped and rounded after every change.
    """
    if rng.random() < 0.5:
        pixels = brighten(pixels, rng.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast_first = rng.random() < 0.5
    contrast = rng.uniform(*FACTORS) if rng.random() < 0.5 else 1.0
    if contrast_first:
        pixels = scale_contrast(pixels, contrast)
    if pixels.shape[-1] == 3:
        if rng.random() < 0.5:
            pixels = saturate(pixels, rng.uniform(*FACTORS))
        if rng.random() < 0.5:
            pixels = rotate_hue(pixels, DEGREES_PER_STEP * int(rng.integers(-HUE_STEPS, HUE_STEPS)))
    return pixels if contrast_first else scale_contrast(pixels, contrast)


def brighten(pixels: UInt8[np.ndarray, "H W C"], amount: float) -> UInt8[np.ndarray, "H W C"]:
    """Adds an amount on a scale of 0 to 255 to pixels."""
    return _bytes(np.arange(256) + amount)[pixels]


def scale_contrast(pixels: UInt8[np.ndarray, "H W C"], factor: float) -> UInt8[np.ndarray, "H W C"]:
    """Multiplies pixels by a factor."""
    return _bytes(np.arange(256) * factor)[pixels]


def saturate(pixels: UInt8[np.ndarray, "H W 3"], factor: float) -> UInt8[np.ndarray, "H W 3"]:
    """Multiplies the HSV saturation of pixels by a factor, up to a saturation of 1."""
    planes, smallest, largest = _planes(pixels)
    # Saturation is (largest - smallest) / largest; the distance of each channel from the largest is proportional to it.
    factors = np.minimum(np.float32(factor), largest / np.maximum(largest - smallest, 1))
    return _interleaved([largest - (largest - plane) * factors for plane in planes])


def rotate_hue(pixels: UInt8[np.ndarray, "H W 3"], degrees: float) -> UInt8[np.ndarray, "H W 3"]:
    """Rotates the HSV hue of pixels by an angle in degrees."""
    (red, green, blue), smallest, largest = _planes(pixels)
    chroma = largest - smallest
    sector = np.where(largest == red, np.float32(0), np.where(largest == green, np.float32(2), np.float32(4)))
    ahead = np.where(sector == 0, green - blue, np.where(sector == 2, blue - red, red - green))
    sixths = sector + ahead / np.maximum(chroma, 1) + np.float32(degrees / 60)  # of the circle of hues, which begins at red
    sixths -= 6 * np.floor(sixths / 6)
    # A channel's fraction of the chroma falls with the distance from its own hue: 0 for red, 2 for green and 4 for blue.
    fractions = (np.abs(sixths - 3) - 1, 2 - np.abs(sixths - 2), 2 - np.abs(sixths - 4))
    return _interleaved([smallest + chroma * np.clip(fraction, 0, 1) for fraction in fractions])


def _planes(
    pixels: UInt8[np.ndarray, "H W 3"],
) -> tuple[list[Float32[np.ndarray, "H W"]], Float32[np.ndarray, "H W"], Float32[np.ndarray, "H W"]]:
    """Returns the three channels, and the smallest and the largest value of each pixel."""
    red, green, blue = (pixels[:, :, channel].astype(np.float32) for channel in range(3))
    return [red, green, blue], np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)


def _interleaved(planes: list[Float32[np.ndarray, "H W"]]) -> UInt8[np.ndarray, "H W 3"]:
    """Rounds three planes of values from 0 to 255 to pixels."""
    return np.stack([(plane + np.float32(0.5)).astype(np.uint8) for plane in planes], -1)


def _bytes(values: Num[np.ndarray, "256"]) -> UInt8[np.ndarray, "256"]:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
