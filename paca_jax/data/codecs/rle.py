"""COCO's run-length encoding (RLE) of bitmaps.

A bitmap is read column by column. Its counts are the lengths of alternating runs of zeros and ones, zeros first.
"""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

_ZERO = 48  # the code of the character for 0
_DATA_BITS, _SIGN, _MORE = 5, 0x10, 0x20


def parse_counts(text: str) -> list[int]:
    """Returns the counts in COCO's compressed text; a count may be negative if the text is damaged.

    A character has five bits, lowest first, and a bit that says whether more follow. From the fourth count on, the text has the
    difference to the count before the previous one.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - _ZERO
        value |= (bits & (_MORE - 1)) << shift
        shift += _DATA_BITS
        if not bits & _MORE:
            if bits & _SIGN:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    return counts


def encode_bitmap(bitmap: np.ndarray) -> dict[str, Any]:
    """Returns the run-length encoding of a (H, W) bitmap in COCO's compressed form, {"size": [H, W], "counts": str}."""
    encoded = coco_mask.encode(np.asfortranarray(bitmap, np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def encode_polygons(polygons: list[np.ndarray], size: tuple[int, int]) -> dict[str, Any]:
    """Returns the run-length encoding of the union of polygons, for `decode`.

    Args:
        polygons: one or more, each (2k,) x, y, ... in pixels with k >= 3; parts outside the picture are cut off.
        size: (height, width) of the picture in pixels.
    """
    return coco_mask.merge(coco_mask.frPyObjects(polygons, *size))


def decode(encoded: dict[str, Any]) -> np.ndarray:
    """Returns the (H, W) uint8 bitmap of a run-length encoding; counts in a list must cover the picture."""
    if isinstance(encoded["counts"], list):
        height, width = encoded["size"]
        values = np.arange(len(encoded["counts"])) % 2
        return np.repeat(values.astype(np.uint8), encoded["counts"]).reshape(width, height).T
    return coco_mask.decode(encoded)
