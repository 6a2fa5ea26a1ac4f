"""Maps as text for the page: pooled to cells, rounded to bytes, compressed, in base64.

Both attention weights and assignments are weights that sum to one, so a page needs no scale: a byte q stands for q^2, and the
weights are the squares divided by their sum. Squares keep the many small weights of a map with a high peak.
"""

import base64
import math
import zlib

import numpy as np
from jaxtyping import Float, UInt8

# The longest side of a map in cells: that of the first stage for an image of 224 pixels.
LONGEST = 56


def cell_side(height: int, width: int) -> int:
    """Returns the side in patches of the cells that a map is pooled to; 1 for a map that is shown patch by patch."""
    return math.ceil(max(height, width) / LONGEST)


def pool_attention(weights: Float[np.ndarray, "heads H W M"], side: int) -> Float[np.ndarray, "heads R S M"]:
    """Returns attention weights averaged over the patches of each cell; they still sum to one over the clusters."""
    sums = _cell_sums(weights, 1, side)
    counts = _cell_sums(np.ones_like(weights[:1, :, :, :1]), 1, side)
    return sums / counts


def pool_assignment(weights: Float[np.ndarray, "M H W"], side: int) -> Float[np.ndarray, "M R S"]:
    """Returns assignments summed over the patches of each cell; each cluster still sums to one."""
    return _cell_sums(weights, 1, side)


def to_bytes(weights: Float[np.ndarray, "*shape"], axes: tuple[int, ...]) -> UInt8[np.ndarray, "*shape"]:
    """Returns the bytes of weights that sum to one over `axes`: roots, scaled so that the largest is 255."""
    largest = weights.max(axis=axes, keepdims=True)
    return np.rint(255 * np.sqrt(weights / np.maximum(largest, np.finfo(np.float32).tiny))).astype(np.uint8)


def to_text(values: UInt8[np.ndarray, "*shape"]) -> str:
    """Returns bytes in zlib's format and base64, as `DecompressionStream("deflate")` reads them."""
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()


def _cell_sums(values: Float[np.ndarray, "*shape"], axis: int, side: int) -> Float[np.ndarray, "*cells"]:
    """Returns the sums over cells of `side` x `side` patches, whose rows are at `axis`; cells at the end may be smaller."""
    for each in (axis, axis + 1):
        values = np.add.reduceat(values, np.arange(0, values.shape[each], side), axis=each)
    return values
