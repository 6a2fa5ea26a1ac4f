"""COCO's run-length encoding (RLE) of bitmaps.

A bitmap is read column by column. Its counts are the lengths of alternating runs of zeros and ones, zeros first.
"""

from types import ModuleType
from typing import Any

import numpy as np

from paca_jax.errors import UserError

_ZERO = 48  # the code of the character for 0
_DATA_BITS, _SIGN, _MORE = 5, 0x10, 0x20
_MAX_BITS = 64  # of a count
# Pixels of the outline of a polygon: drawing takes some 100 bytes for each.
LONGEST = 2_000_000


def coco_mask() -> ModuleType:
    """Returns COCO's functions of bitmaps, which only the training stack installs."""
    from pycocotools import mask

    return mask


def parse_counts(text: str) -> list[int]:
    """Returns the counts in COCO's compressed text; a count may be negative if the text is damaged.

    A character has five bits, lowest first, and a bit that says whether more follow. From the fourth count on, the text has the
    difference to the count before the previous one.

    Raises:
        ValueError: the text has other characters, or ends within a count.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - _ZERO
        if not 0 <= bits < 2 * _MORE or shift >= _MAX_BITS:
            raise ValueError(f"no compressed counts: {character!r} after {len(counts)} of them")
        value |= (bits & (_MORE - 1)) << shift
        shift += _DATA_BITS
        if not bits & _MORE:
            if bits & _SIGN:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise ValueError(f"compressed counts end within count {len(counts)}")
    return counts


def encode_bitmap(bitmap: np.ndarray) -> dict[str, Any]:
    """Returns the run-length encoding of a (H, W) bitmap in COCO's compressed form, {"size": [H, W], "counts": str}."""
    if not isinstance(bitmap, np.ndarray) or bitmap.ndim != 2:
        raise UserError(f"Expected a bitmap of shape (H, W), got {np.shape(bitmap)}. Pass one NumPy array for each object.")
    encoded = coco_mask().encode(np.asfortranarray(bitmap, np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def run_lengths(bitmap: np.ndarray) -> dict[str, Any]:
    """Returns the run-length encoding of a (H, W) bitmap with counts in a list, {"size": [H, W], "counts": [int]}."""
    column_by_column = bitmap.ravel(order="F") > 0
    changes = np.flatnonzero(np.diff(column_by_column)) + 1
    counts = np.diff(changes, prepend=0, append=column_by_column.size).tolist()
    return {"size": list(bitmap.shape), "counts": [0, *counts] if column_by_column[:1].any() else counts}


def is_drawable(polygon: np.ndarray) -> bool:
    """Returns whether the edges of a polygon, each at least one pixel, are `LONGEST` pixels or less in all."""
    points = polygon.reshape(-1, 2)
    if len(points) * max(float(np.ptp(polygon)), 1.0) <= LONGEST:  # true of almost all, and fast
        return True
    return float(np.maximum(np.abs(points - np.roll(points, 1, 0)).max(1), 1).sum()) <= LONGEST


def encode_polygons(polygons: list[np.ndarray], size: tuple[int, int]) -> dict[str, Any]:
    """Returns the run-length encoding of the union of polygons, for `decode`.

    Args:
        polygons: one or more, each (2k,) x, y, ... in pixels with k >= 3; parts outside the picture are cut off.
        size: (height, width) of the picture in pixels.

    Raises:
        UserError: an outline is too long to be drawn.
    """
    if not all(map(is_drawable, polygons)):
        raise UserError(f"Expected polygons whose outlines are at most {LONGEST} pixels long, got longer ones. Simplify them.")
    return coco_mask().merge(coco_mask().frPyObjects(polygons, *size))


def decode(encoded: dict[str, Any]) -> np.ndarray:
    """Returns the (H, W) uint8 bitmap of a run-length encoding; counts in a list must cover the picture."""
    if isinstance(encoded["counts"], list):
        height, width = encoded["size"]
        values = np.arange(len(encoded["counts"])) % 2
        return np.repeat(values.astype(np.uint8), encoded["counts"]).reshape(width, height).T
    return coco_mask().decode(encoded)


def mask_area(segments: list[np.ndarray] | dict[str, Any], size: tuple[int, int]) -> float:
    """Returns the area in pixels of a mask in a picture.

    Args:
        segments: polygons as for `encode_polygons`, or a run-length encoding with counts in a list.
        size: (height, width) of the picture in pixels.
    """
    if isinstance(segments, dict):
        return float(sum(segments["counts"][1::2]))
    return float(coco_mask().area(encode_polygons(segments, size)))


def mask_box(segments: list[np.ndarray] | dict[str, Any]) -> list[float]:
    """Returns the left, top, width and height in pixels of a mask; `segments` is as for `mask_area`."""
    if isinstance(segments, dict):
        return coco_mask().toBbox(coco_mask().frPyObjects(segments, *segments["size"])).tolist()
    points = np.concatenate(segments).reshape(-1, 2)
    corner = points.min(0)
    return [*corner.tolist(), *(points.max(0) - corner).tolist()]
