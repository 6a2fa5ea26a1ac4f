"""Pixels from bytes to what models take: ImageNet's mean and standard deviation."""

import functools
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

# Of red, green and blue, on a scale of 0 to 1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Pixels = TypeVar("Pixels", np.ndarray, jax.Array)


@functools.cache
def _scale_and_shift(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the multiply-add that normalizes bytes; one channel is normalized with the means of MEAN and of STD."""
    mean, std = np.array(MEAN), np.array(STD)
    if channels == 1:
        mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def normalize(pixels: Pixels) -> Pixels:
    """Returns normalized float32 pixels.

    Args:
        pixels: uint8 (..., C) with C of 1 or 3; a NumPy array on the host, or a JAX array (also inside jit).
    """
    scale, shift = _scale_and_shift(pixels.shape[-1])
    return pixels * scale + shift


def normalize_inside(pixels: UInt8[Array, "B H W C"], sizes: Int[Array, "B 2"]) -> Float[Array, "B H W C"]:
    """Returns normalized pixels, 0 in the padding of each image.

    Args:
        pixels: padded images.
        sizes: the height and width of each image without its padding.
    """
    rows, columns = (jnp.arange(side) < sizes[:, axis, None] for axis, side in enumerate(pixels.shape[1:3]))
    inside = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(inside, normalize(pixels), 0)
