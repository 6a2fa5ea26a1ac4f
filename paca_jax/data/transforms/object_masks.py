"""The masks of objects as a training step takes them: one bit a pixel, eight pixels of a row a byte."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from paca_jax.data.codecs.rle import decode, encode_polygons
from paca_jax.data.sources.objects import Segments
from paca_jax.data.transforms.placement import Placement

PACKED = 8
# Corners of polygons are brought back to this many widths or heights from the picture: far off, so that what is inside stays.
_REACH = 4.0


def bitmap(segments: Segments, placement: Placement) -> np.ndarray:
    """Returns the (H, W) uint8 mask of an object in a placed picture.

    Polygons are placed first and drawn then; a bitmap of run lengths is resized to its nearest pixels.

    Args:
      segments: the object's mask, not empty.
      placement: of its picture.
    """
    if isinstance(segments, dict):
        return placement.bitmap(decode(segments))
    return decode(_drawn(segments, placement))


def packed_masks(segments: list[Segments], placement: Placement, shape: tuple[int, int], count: int) -> np.ndarray:
    """Returns the masks of the objects of a placed picture as bits.

    Args:
      segments: n masks, none of them empty.
      placement: of the picture.
      shape: (H, W) in pixels that they are padded to; W is a multiple of 8.
      count: N, not below n.

    Returns:
      (N, H, W / 8) uint8; the highest bit of a byte is its leftmost pixel, and what pads is 0.
    """
    height, width = shape
    packed = np.zeros((count, height, width // PACKED), np.uint8)
    for row, of_object in enumerate(segments):
        if isinstance(of_object, dict):
            bits = np.packbits(bitmap(of_object, placement), 1)
            packed[row, : bits.shape[0], : bits.shape[1]] = bits
        else:
            _pack_part(packed[row], _drawn(of_object, placement))
    return packed


def unpack_masks(packed: Any) -> Any:
    """Returns the masks that `packed_masks` has packed.

    Args:
      packed: (..., W / 8) uint8; a numpy array, or a JAX array (also inside jit).

    Returns:
      (..., W) uint8 of zeros and ones.
    """
    bits = (packed[..., None] >> np.arange(PACKED - 1, -1, -1, dtype=np.uint8)) & np.uint8(1)
    return bits.reshape(*packed.shape[:-1], PACKED * packed.shape[-1])


def _drawn(polygons: list[np.ndarray], placement: Placement) -> dict[str, Any]:
    """The run lengths of polygons in a placed picture."""
    height, width = placement.final
    reach = _REACH * np.array([width, height])
    placed = [placement.points(polygon.reshape(-1, 2)) for polygon in polygons]
    return encode_polygons([np.clip(points, -reach, reach).ravel() for points in placed], placement.final)


def _pack_part(packed: np.ndarray, encoded: dict[str, Any]) -> None:
    """Packs what run lengths mark into a mask of zeros; only the bytes around it are looked at."""
    left, top, width, height = coco_mask.toBbox(encoded).astype(int).tolist()
    first = left // PACKED
    part = decode(encoded)[top : top + height, first * PACKED : left + width]
    bits = np.packbits(np.ascontiguousarray(part), 1)
    packed[top : top + height, first : first + bits.shape[1]] = bits
