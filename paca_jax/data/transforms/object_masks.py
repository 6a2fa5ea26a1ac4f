"""The masks of objects as packed bits: a byte holds eight pixels of a row."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from paca_jax.data.codecs.rle import coco_mask, decode, encode_polygons
from paca_jax.data.sources.objects import Segments
from paca_jax.data.transforms.placement import Placement
from paca_jax.errors import UserError

PACKED = 8
# Corners of polygons are clipped to this many widths or heights around the picture: so far that its inside does not change.
_REACH = 4.0


def bitmap(segments: Segments, placement: Placement) -> UInt8[np.ndarray, "H W"]:
    """Returns the mask of an object in a placed picture, zeros and ones.

    Polygons are placed first and drawn then; a run-length encoded bitmap is resized to the nearest pixels.

    Args:
        segments: the object's mask, not empty.
        placement: the placement of its picture.
    """
    if isinstance(segments, dict):
        return placement.bitmap(decode(segments))
    return decode(_drawn(segments, placement))


def packed_masks(
    segments: list[Segments], placement: Placement, shape: tuple[int, int], count: int
) -> UInt8[np.ndarray, "N H W8"]:
    """Returns the masks of the objects of a placed picture as packed bits.

    Args:
        segments: n masks, none of them empty.
        placement: the placement of the picture.
        shape: (H, W) in pixels that the masks are padded to; W is a multiple of 8.
        count: N, at least n.

    Returns:
        The masks with W8 = W / 8; the highest bit of a byte is its leftmost pixel, and padding is 0.
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
    """Unpacks the masks of `packed_masks`.

    Args:
        packed: (..., W / 8) uint8; a numpy array, or a JAX array (also under jit).

    Returns:
        (..., W) uint8 of zeros and ones.
    """
    if getattr(packed, "dtype", None) != np.uint8:
        raise UserError(f"Expected packed masks, an array of uint8, got a value of type {type(packed).__name__}. Pass masks.")
    bits = (packed[..., None] >> np.arange(PACKED - 1, -1, -1, dtype=np.uint8)) & np.uint8(1)
    return bits.reshape(*packed.shape[:-1], PACKED * packed.shape[-1])


def _drawn(polygons: list[np.ndarray], placement: Placement) -> dict[str, Any]:
    """Returns the run-length encoding of polygons in a placed picture."""
    height, width = placement.final
    reach = _REACH * np.array([width, height])
    placed = [placement.points(polygon.reshape(-1, 2)) for polygon in polygons]
    return encode_polygons([np.clip(points, -reach, reach).ravel() for points in placed], placement.final)


def _pack_part(packed: UInt8[np.ndarray, "H W8"], encoded: dict[str, Any]) -> None:
    """Packs a run-length encoded bitmap into a mask of zeros; only the bytes in its bounding box are touched."""
    left, top, width, height = coco_mask().toBbox(encoded).astype(int).tolist()
    first = left // PACKED
    part = decode(encoded)[top : top + height, first * PACKED : left + width]
    bits = np.packbits(np.ascontiguousarray(part), 1)
    packed[top : top + height, first : first + bits.shape[1]] = bits
