"""Photometric distortion (Liu et al., 2016, SSD): brightness, contrast, saturation and hue, each left out half of the time."""

import numpy as np

BRIGHTNESS = 32.0  # added or taken away at most, on a scale of 0 to 255
FACTORS = (0.5, 1.5)  # of contrast and of saturation
HUE_STEPS = 18  # either way at most; -18 is drawn, +18 is not
DEGREES_PER_STEP = 2.0  # OpenCV counts the 360 degrees of hue in 180 steps


def distort(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distorts a picture at random: brightness, then saturation and hue, with contrast before or after these two.

    Args:
      pixels: (H, W, C) uint8; with one channel neither saturation nor hue is changed.
      rng: decides everything that is random.

    Returns:
      (H, W, C) uint8; values are clipped and rounded after every change.
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
            pixels = turn_hue(pixels, DEGREES_PER_STEP * int(rng.integers(-HUE_STEPS, HUE_STEPS)))
    return pixels if contrast_first else scale_contrast(pixels, contrast)


def brighten(pixels: np.ndarray, amount: float) -> np.ndarray:
    """Adds an amount on a scale of 0 to 255 to uint8 pixels."""
    return _bytes(np.arange(256) + amount)[pixels]


def scale_contrast(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies uint8 pixels by a factor."""
    return _bytes(np.arange(256) * factor)[pixels]


def saturate(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies the saturation of HSV, at most to 1, of (H, W, 3) uint8 pixels by a factor."""
    planes, smallest, largest = _planes(pixels)
    # Saturation is (largest - smallest) / largest, and the distance of each channel from the largest goes with it.
    factors = np.minimum(np.float32(factor), largest / np.maximum(largest - smallest, 1))
    return _interleaved([largest - (largest - plane) * factors for plane in planes])


def turn_hue(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Turns the hue of HSV of (H, W, 3) uint8 pixels by an angle in degrees."""
    (red, green, blue), smallest, largest = _planes(pixels)
    chroma = largest - smallest
    sector = np.where(largest == red, np.float32(0), np.where(largest == green, np.float32(2), np.float32(4)))
    ahead = np.where(sector == 0, green - blue, np.where(sector == 2, blue - red, red - green))
    sixths = sector + ahead / np.maximum(chroma, 1) + np.float32(degrees / 60)  # of the circle of hues, which begins at red
    sixths -= 6 * np.floor(sixths / 6)
    # The part of the chroma that a channel has falls with the distance from its own hue: red's is 0, green's 2 and blue's 4.
    shares = (np.abs(sixths - 3) - 1, 2 - np.abs(sixths - 2), 2 - np.abs(sixths - 4))
    return _interleaved([smallest + chroma * np.clip(share, 0, 1) for share in shares])


def _planes(pixels: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """The three channels, the smallest and the largest of each pixel, as float32 (H, W)."""
    red, green, blue = (pixels[:, :, channel].astype(np.float32) for channel in range(3))
    return [red, green, blue], np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)


def _interleaved(planes: list[np.ndarray]) -> np.ndarray:
    """Rounds three (H, W) planes of values from 0 to 255 to (H, W, 3) uint8 pixels."""
    return np.stack([(plane + np.float32(0.5)).astype(np.uint8) for plane in planes], -1)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
