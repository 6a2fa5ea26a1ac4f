"""COCO's run lengths, and bitmaps.

A bitmap is read column by column; its counts are the lengths of the runs of zeros and ones in turn, zeros first.
"""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

_ZERO = 48  # the character of 0
_DATA_BITS, _SIGN, _MORE = 5, 0x10, 0x20


def parse_counts(text: str) -> list[int]:
    """Returns the counts that COCO's short form writes as text; a count may be below 0 where the text is damaged.

    A character has five bits, lowest first, and whether more follow; from the fourth count on the difference to the last but
    one is written.
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
    """Returns the run lengths of a (H, W) bitmap in COCO's short form, {"size": [H, W], "counts": str}."""
    encoded = coco_mask.encode(np.asfortranarray(bitmap, np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def encode_polygons(polygons: list[np.ndarray], size: tuple[int, int]) -> dict[str, Any]:
    """Returns the run lengths of the union of polygons as `decode` takes them.

    Args:
      polygons: one or more, each (2k,) x, y, ... in pixels with k of 3 or more; what lies outside the picture is cut off.
      size: (height, width) of the picture in pixels.
    """
    return coco_mask.merge(coco_mask.frPyObjects(polygons, *size))


def decode(encoded: dict[str, Any]) -> np.ndarray:
    """Returns the (H, W) uint8 bitmap of run lengths, in either form; those in a list must cover the picture."""
    if isinstance(encoded["counts"], list):
        height, width = encoded["size"]
        values = np.arange(len(encoded["counts"])) % 2
        return np.repeat(values.astype(np.uint8), encoded["counts"]).reshape(width, height).T
    return coco_mask.decode(encoded)
