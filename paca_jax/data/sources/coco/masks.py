"""The masks of a COCO file in a few arrays: a million lists would be slow to copy to each worker."""

import dataclasses
import logging
import math
from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from paca_jax.data.codecs.rle import LONGEST, is_drawable, parse_counts
from paca_jax.data.sources.coco.fields import FAR, CocoFields, named, shown, whole
from paca_jax.data.sources.objects import Segments

logger = logging.getLogger(__name__)

_POLYGON, _COUNTS = 0, 1
_MIN_NUMBERS = 6  # in a polygon: three points
_NUMBERS = {int, float}


class Numbers:
    """Many float64 values, stored in half the space, without loss, if all are whole hundredths, as COCO's coordinates are."""

    def __init__(self, values: np.ndarray) -> None:
        """Stores (n,) finite float64 values."""
        hundredths = np.rint(100 * values)
        fits = bool((np.abs(hundredths) < 2**31).all() and (hundredths / 100 == values).all())
        self._values: np.ndarray = hundredths.astype(np.int32) if fits else values
        self._divisor = 100 if fits else 1

    def __getitem__(self, part: slice) -> np.ndarray:
        """Returns a slice of the values, in float64."""
        return self._values[part] / self._divisor


@dataclass(frozen=True)
class PackedMasks:
    """The masks of m objects, each of several polygons, of one list of run lengths, or of nothing.

    Attributes:
        parts: the parts of each object's mask: the first, and one past the last.
        ends: the end of each part in `numbers`.
        kinds: 0 for a polygon, 1 for run lengths.
        numbers: coordinates in pixels, and run lengths.
    """

    parts: Int[np.ndarray, "m 2"]
    ends: Int[np.ndarray, " parts"]
    kinds: Int[np.ndarray, " parts"]
    numbers: Numbers

    @property
    def present(self) -> Bool[np.ndarray, " m"]:
        """Whether each object has a mask."""
        return self.parts[:, 1] > self.parts[:, 0]

    def segments(self, number: int, size: list[int]) -> Segments:
        """Returns the mask of object `number`, whose picture has a (height, width) in pixels."""
        parts = range(*self.parts[number])
        numbers = [self.numbers[self.ends[part - 1] if part else 0 : self.ends[part]] for part in parts]
        if parts and self.kinds[parts[0]] == _COUNTS:
            return {"size": size, "counts": numbers[0].astype(np.int64).tolist()}
        return numbers

    def ordered(self, order: Int[np.ndarray, " m"]) -> "PackedMasks":
        """Returns the masks in another order."""
        return dataclasses.replace(self, parts=self.parts[order])


class MaskPacker:
    """Checks and packs the masks of a file's annotations, one after the other."""

    def __init__(self, fields: CocoFields) -> None:
        self._fields = fields
        self._parts = array("q", [0])
        self._ends = array("q")
        self._kinds = array("B")
        self._numbers = array("d")
        self._left_out = 0
        self._first_left_out = ""

    def add(self, annotation: dict[str, Any], size: list[int]) -> Segments:
        """Adds the mask of an annotation, and returns it.

        Args:
            annotation: an entry of the file. A missing "segmentation" is an empty list.
            size: height and width of its picture in pixels.

        Raises:
            UserError: its "segmentation" is neither polygons nor run lengths of the picture.
        """
        given = annotation.get("segmentation")
        segments: Segments = []
        if isinstance(given, dict):
            counts = self._counts(annotation, given, size)
            if any(counts[1::2]):
                segments = {"size": size, "counts": counts}
                self._add_part(_COUNTS, np.array(counts, np.float64))
        elif given is not None:
            segments = self._polygons(annotation, given, size)
            for polygon in segments:
                self._add_part(_POLYGON, polygon)
        self._parts.append(len(self._ends))
        return segments

    def packed(self) -> PackedMasks:
        """Returns all masks, and logs how many polygons were left out."""
        if self._left_out:
            logger.warning(
                "Left out %d polygons of the COCO file %s that enclose nothing in their picture: fewer than three points, an "
                "odd number of coordinates, or outside of it. The first is of %s.",
                self._left_out,
                self._fields.path,
                self._first_left_out,
            )
        bounds = np.array(self._parts, np.int64)
        return PackedMasks(
            parts=np.stack([bounds[:-1], bounds[1:]], 1),
            ends=np.array(self._ends, np.int64),
            kinds=np.array(self._kinds, np.uint8),
            numbers=Numbers(np.array(self._numbers, np.float64)),
        )

    def _add_part(self, kind: int, numbers: np.ndarray) -> None:
        self._numbers.frombytes(numbers.tobytes())
        self._ends.append(len(self._numbers))
        self._kinds.append(kind)

    def _polygons(self, annotation: dict[str, Any], given: Any, size: list[int]) -> list[np.ndarray]:
        """Returns the polygons that enclose something in the picture."""
        is_nested = isinstance(given, list) and all(isinstance(polygon, list) for polygon in given)
        if not is_nested or (len(given) > 2 and all(len(polygon) == 2 for polygon in given)):  # the latter is a list of points
            expected = (
                f"a list of polygons, each a list x, y, x, y, ..., or run lengths as the segmentation of {named(annotation)}"
            )
            self._fields.refuse(expected, shown(given))
        kept = []
        for polygon in given:
            points = self._points(annotation, polygon)
            if len(points) >= _MIN_NUMBERS and len(points) % 2 == 0 and _overlaps(points, size):
                if not is_drawable(points):
                    expected = f"polygons whose outlines are at most {LONGEST} pixels long of {named(annotation)}"
                    self._fields.refuse(expected, "a longer one", "Simplify it")
                kept.append(points)
            elif polygon:  # an empty one is how exporters write a box without a mask
                self._first_left_out = self._first_left_out or named(annotation)
                self._left_out += 1
        return kept

    def _points(self, annotation: dict[str, Any], polygon: list[Any]) -> np.ndarray:
        if _NUMBERS.issuperset(map(type, polygon)):
            try:
                points = np.array(polygon, np.float64)
            except OverflowError:  # a whole number beyond all floats
                points = np.full(1, np.inf)
            if not len(points) or (points.min() > -FAR and points.max() < FAR):
                return points
        self._fields.refuse(f"coordinates in pixels in the polygons of {named(annotation)}", "others")

    def _counts(self, annotation: dict[str, Any], given: dict[str, Any], size: list[int]) -> list[int]:
        """Returns the run lengths of a mask, which must cover its picture."""
        counts, sides = given.get("counts"), given.get("size")
        if isinstance(counts, str):
            try:
                counts = parse_counts(counts)
            except ValueError:
                counts = None
        lengths = [whole(count) for count in counts] if isinstance(counts, list) else []
        fits = isinstance(sides, list) and [whole(side) for side in sides] == size
        found = [length for length in lengths if length is not None and length >= 0]
        if not fits or len(found) < len(lengths) or sum(found) != math.prod(size):
            self._fields.refuse(f"run lengths of {size[1]}x{size[0]} pixels (width x height) of {named(annotation)}", "others")
        return found


def _overlaps(points: np.ndarray, size: list[int]) -> bool:
    """Returns whether the bounds of a polygon overlap its picture."""
    height, width = size
    if 0 < points[0] < width and 0 < points[1] < height:  # true of almost all, and fast
        return True
    x, y = points[::2], points[1::2]
    return bool(x.max() > 0 and y.max() > 0 and x.min() < width and y.min() < height)
