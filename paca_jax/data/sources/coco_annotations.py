"""COCO's annotation files, read once into a few arrays: a million dicts would be slow to copy to each worker."""

import json
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from paca_jax.data.codecs.rle import parse_counts
from paca_jax.data.sources.dataset import quoted
from paca_jax.data.sources.files import read_file
from paca_jax.data.sources.objects import Segments
from paca_jax.errors import UserError

_LISTS = ("images", "annotations", "categories")
_POLYGON, _COUNTS = 0, 1
_MIN_NUMBERS = 6  # in a polygon: three points
_FAR = 1e6  # pixels: beyond any picture


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
class CocoFile:
    """The content of an annotation file. The objects of image i are those from `first[i]` up to `first[i + 1]`.

    Attributes:
        class_names: the names of the categories, ordered by id.
        category_ids: their ids.
        image_ids: (n,) int64, in the file's order.
        sizes: (n, 2) int32, height and width in pixels.
        file_names: of the images.
        first: (n + 1,) int64.
        boxes: (m, 4) float64: left, top, width, height in pixels.
        areas: (m,) float64.
        labels: (m,) int32.
        crowd: (m,) bool.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_ids: np.ndarray
    sizes: np.ndarray
    file_names: Sequence[str]
    first: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    _part_of_object: np.ndarray  # (m, 2) int64, the parts of each object's mask: the first, and one past the last
    _part_ends: np.ndarray  # (parts,) int64, the end of each part in `_numbers`
    _part_kinds: np.ndarray  # (parts,) uint8
    _numbers: Numbers

    @property
    def has_masks(self) -> bool:
        """Returns whether any object has a mask."""
        return len(self._part_ends) > 0

    def segments(self, number: int, image: int) -> Segments:
        """Returns the mask of object `number`, which is one of image `image`."""
        parts = range(*self._part_of_object[number])
        numbers = [self._numbers[self._part_ends[part - 1] if part else 0 : self._part_ends[part]] for part in parts]
        if parts and self._part_kinds[parts[0]] == _COUNTS:
            return {"size": self.sizes[image].tolist(), "counts": numbers[0].astype(np.int64).tolist()}
        return numbers


def read_coco(path: str) -> CocoFile:
    """Reads an annotation file.

    Polygons with fewer than three points or an odd number of coordinates are left out, as they enclose nothing. An object
    without "iscrowd" is no crowd, and the area of one without "area" is that of its box.

    Args:
        path: the path of a JSON file with "images", "annotations" and "categories".

    Raises:
        UserError: it cannot be read, is not such a file, or contradicts itself; the entry is named by its id.
    """
    return _Reader(path).read()


class _Reader:
    """Reads one file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._numbers = array("d")
        self._part_ends = array("q")
        self._part_kinds = array("B")

    def read(self) -> CocoFile:
        content = self._content()
        categories = sorted(self._unique(content["categories"], "category"), key=lambda category: category["id"])
        if not categories:
            self._refuse("categories", "none")
        names = tuple(self._text(category, "name", f"category {category['id']}") for category in categories)
        labels = {category["id"]: label for label, category in enumerate(categories)}
        images = self._unique(content["images"], "image")
        sizes = np.array([self._size(image) for image in images], np.int32).reshape(-1, 2)
        number_of = {image["id"]: number for number, image in enumerate(images)}
        annotations = self._unique(content["annotations"], "annotation")

        of_image, of_class = np.zeros((2, len(annotations)), np.int64)
        boxes, areas = np.zeros((len(annotations), 4)), np.zeros(len(annotations))
        crowd = np.zeros(len(annotations), bool)
        parts = np.zeros((len(annotations), 2), np.int64)
        for row, annotation in enumerate(annotations):
            of_image[row] = self._known(annotation, "image_id", number_of)
            of_class[row] = self._known(annotation, "category_id", labels)
            boxes[row] = self._box(annotation)
            areas[row] = self._area(annotation, boxes[row])
            crowd[row] = bool(annotation.get("iscrowd", 0))
            self._add_mask(annotation, sizes[of_image[row]].tolist())
            parts[row] = (parts[row - 1, 1] if row else 0), len(self._part_ends)
        order = np.argsort(of_image, kind="stable")
        return CocoFile(
            class_names=names,
            category_ids=tuple(labels),
            image_ids=np.array(list(number_of), np.int64),
            sizes=sizes,
            file_names=[self._text(image, "file_name", f"image {image['id']}") for image in images],
            first=np.searchsorted(of_image[order], np.arange(len(images) + 1)),
            boxes=boxes[order],
            areas=areas[order],
            labels=of_class[order].astype(np.int32),
            crowd=crowd[order],
            _part_of_object=parts[order],
            _part_ends=np.array(self._part_ends, np.int64),
            _part_kinds=np.array(self._part_kinds, np.uint8),
            _numbers=Numbers(np.array(self._numbers, np.float64)),
        )

    def _content(self) -> dict[str, Any]:
        try:
            content = json.loads(read_file(self._path))
        except ValueError as error:  # not JSON, or not text at all
            raise UserError(
                f"Expected a COCO annotation file at {self._path}, got a file that is not JSON ({error}). Replace it."
            ) from error
        found = [name for name in _LISTS if isinstance(content, dict) and isinstance(content.get(name), list)]
        if len(found) < len(_LISTS):
            missing = quoted(name for name in _LISTS if name not in found)
            raise UserError(
                f"Expected a COCO annotation file with the lists {quoted(_LISTS)} at {self._path}, got JSON without "
                f"{missing}. Give an instances file."
            )
        return content

    def _unique(self, entries: Iterable[Any], kind: str) -> list[dict[str, Any]]:
        """Returns the entries, after checking that their ids are unique whole numbers."""
        seen = set()
        checked = []
        for entry in entries:
            number = entry.get("id") if isinstance(entry, dict) else None
            if type(number) is not int or abs(number) >= 2**63:
                self._refuse(f"a whole number as the id of every {kind}", repr(number))
            if number in seen:
                self._refuse(f"every {kind} to have a unique id", f"{kind} {number} twice")
            seen.add(number)
            checked.append(entry)
        return checked

    def _text(self, entry: dict[str, Any], key: str, what: str) -> str:
        value = entry.get(key)
        if not isinstance(value, str) or not value:
            self._refuse(f"a text as {key!r} of {what}", repr(value))
        return value

    def _size(self, image: dict[str, Any]) -> tuple[int, int]:
        size = image.get("height"), image.get("width")
        if not all(type(length) is int and 0 < length < _FAR for length in size):
            self._refuse(f"a height and a width in pixels of image {image['id']}", f"{size[0]!r} and {size[1]!r}")
        return size  # type: ignore[return-value]

    def _known(self, annotation: dict[str, Any], key: str, known: dict[int, int]) -> int:
        value = annotation.get(key)
        if type(value) is not int or value not in known:
            self._refuse(f"the {key} of {_named(annotation)} to be listed", repr(value))
        return known[value]

    def _box(self, annotation: dict[str, Any]) -> list[float]:
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            self._refuse(f"a bbox of four numbers (left, top, width, height) of {_named(annotation)}", repr(box))
        return box

    def _area(self, annotation: dict[str, Any], box: np.ndarray) -> float:
        area = annotation.get("area", float(box[2] * box[3]))
        if not _is_number(area, _FAR**2):
            self._refuse(f"a number as the area of {_named(annotation)}", repr(area))
        return area

    def _add_mask(self, annotation: dict[str, Any], size: list[int]) -> None:
        segmentation = annotation.get("segmentation") or []
        if isinstance(segmentation, dict):
            self._add_part(_COUNTS, np.array(self._counts(annotation, segmentation, size), np.float64))
        elif isinstance(segmentation, list) and all(isinstance(polygon, list) for polygon in segmentation):
            for polygon in segmentation:
                points = self._points(annotation, polygon)
                if len(points) >= _MIN_NUMBERS and len(points) % 2 == 0:
                    self._add_part(_POLYGON, points)
        else:
            self._refuse(f"a list of polygons or run lengths as the segmentation of {_named(annotation)}", "neither")

    def _points(self, annotation: dict[str, Any], polygon: list[Any]) -> np.ndarray:
        try:
            points = np.array(polygon, np.float64)
        except (TypeError, ValueError, OverflowError):
            points = np.full(1, np.nan)
        if points.ndim != 1 or not (np.abs(points) < _FAR).all():
            self._refuse(f"coordinates in pixels in the polygons of {_named(annotation)}", "others")
        return points

    def _add_part(self, kind: int, numbers: np.ndarray) -> None:
        self._numbers.frombytes(numbers.tobytes())
        self._part_ends.append(len(self._numbers))
        self._part_kinds.append(kind)

    def _counts(self, annotation: dict[str, Any], segmentation: dict[str, Any], size: list[int]) -> list[int]:
        counts = segmentation.get("counts")
        if isinstance(counts, str):
            counts = parse_counts(counts)
        whole = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
        if segmentation.get("size") != size or not whole or sum(counts or []) != math.prod(size):
            self._refuse(f"run lengths of {size[1]}x{size[0]} pixels (width x height) of {_named(annotation)}", "others")
        return counts  # type: ignore[return-value]

    def _refuse(self, expected: str, got: str) -> NoReturn:
        raise UserError(f"Expected {expected} in the COCO file {self._path}, got {got}. Correct the file.")


def _named(annotation: dict[str, Any]) -> str:
    return f"annotation {annotation['id']} of image {annotation.get('image_id')}"


def _is_number(value: Any, limit: float = _FAR) -> bool:
    return type(value) in (int, float) and -limit < value < limit
