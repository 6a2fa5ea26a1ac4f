"""COCO's annotation files, read once into a few arrays."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int

from paca_jax.data.codecs.rle import mask_area, mask_box
from paca_jax.data.sources.coco.fields import CocoFields, named
from paca_jax.data.sources.coco.masks import MaskPacker, PackedMasks
from paca_jax.data.sources.dataset import quoted
from paca_jax.data.sources.objects import Segments
from paca_jax.errors import UserError
from paca_jax.files import read_file

_LISTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class CocoFile:
    """The content of an annotation file. The objects of image i are those from `first[i]` up to `first[i + 1]`.

    Attributes:
        path: the file.
        class_names: the names of the categories, ordered by id.
        category_ids: their ids.
        image_ids: in the file's order.
        sizes: height and width in pixels.
        file_names: of the images.
        first: see above.
        ids: of the annotations.
        boxes: left, top, width, height in pixels.
        areas: in pixels.
        labels: the positions of the objects' categories.
        crowd: whether each object is a crowd.
        masks: of the objects.
    """

    path: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_ids: Int[np.ndarray, " n"]
    sizes: Int[np.ndarray, "n 2"]
    file_names: Sequence[str]
    first: Int[np.ndarray, " n+1"]
    ids: Int[np.ndarray, " m"]
    boxes: Float64[np.ndarray, "m 4"]
    areas: Float64[np.ndarray, " m"]
    labels: Int[np.ndarray, " m"]
    crowd: Bool[np.ndarray, " m"]
    masks: PackedMasks

    def segments(self, number: int, image: int) -> Segments:
        """Returns the mask of object `number`, which is one of image `image`."""
        return self.masks.segments(number, self.sizes[image].tolist())


def read_coco(path: str) -> CocoFile:
    """Reads an annotation file.

    A missing "iscrowd" is 0. A missing "bbox" is that of the mask; a missing "area" that of the mask, or else of the box.
    Polygons that enclose nothing in their picture are left out and counted in the log.

    Args:
        path: the path of a JSON file with "images", "annotations" and "categories", in UTF-8, or in UTF-16 or UTF-32 with a
            byte-order mark.

    Raises:
        UserError: it cannot be read, is not such a file, or contradicts itself; the entry is named by its id.
    """
    content, fields = _content(path), CocoFields(path)
    categories = dict(sorted(fields.by_id(content["categories"], "category").items()))
    class_names = _class_names(fields, categories)
    images = fields.by_id(content["images"], "image")
    annotations = fields.by_id(content["annotations"], "annotation")
    sizes = [[fields.side(image, "height"), fields.side(image, "width")] for image in images.values()]
    position = {number: k for k, number in enumerate(images)}
    label = {number: k for k, number in enumerate(categories)}

    count = len(annotations)
    of_image, of_class = np.zeros((2, count), np.int64)
    boxes, areas, crowd = np.zeros((count, 4)), np.zeros(count), np.zeros(count, bool)
    masks = MaskPacker(fields)
    for row, annotation in enumerate(annotations.values()):
        image = of_image[row] = fields.reference(annotation, "image_id", position)
        of_class[row] = fields.reference(annotation, "category_id", label)
        crowd[row] = fields.crowd(annotation)
        segments = masks.add(annotation, sizes[image])
        boxes[row] = box = _box(fields, annotation, segments)
        areas[row] = _area(fields, annotation, segments, box, sizes[image])
    order = np.argsort(of_image, kind="stable")
    return CocoFile(
        path=path,
        class_names=class_names,
        category_ids=tuple(categories),
        image_ids=np.array(list(images), np.int64),
        sizes=np.array(sizes, np.int32).reshape(-1, 2),
        file_names=[fields.text(image, "file_name", "image") for image in images.values()],
        first=np.searchsorted(of_image[order], np.arange(len(images) + 1)),
        ids=np.array(list(annotations), np.int64)[order],
        boxes=boxes[order],
        areas=areas[order],
        labels=of_class[order].astype(np.int32),
        crowd=crowd[order],
        masks=masks.packed().ordered(order),
    )


def _content(path: str) -> dict[str, Any]:
    try:
        content = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:  # not JSON, or not text at all
        raise UserError(
            f"Expected a COCO annotation file at {path}, got a file that is not JSON ({error}). Export it again, in UTF-8."
        ) from error
    found = [name for name in _LISTS if isinstance(content, dict) and isinstance(content.get(name), list)]
    if len(found) < len(_LISTS):
        missing = quoted(name for name in _LISTS if name not in found)
        raise UserError(
            f"Expected a COCO annotation file with the lists {quoted(_LISTS)} at {path}, got JSON without {missing}. Give an "
            "instances file."
        )
    return content


def _class_names(fields: CocoFields, categories: dict[int, dict[str, Any]]) -> tuple[str, ...]:
    if not categories:
        fields.refuse("categories", "none")
    number_of: dict[str, int] = {}
    for number, category in categories.items():
        name = fields.text(category, "name", "category")
        if name in number_of:
            both = f"{name!r} for categories {number_of[name]} and {number}"
            fields.refuse("every category to have a unique name", both, "Rename one of them, or merge them")
        number_of[name] = number
    return tuple(number_of)


def _box(fields: CocoFields, annotation: dict[str, Any], segments: Segments) -> list[float]:
    box = fields.box(annotation)
    if box is None and not segments:
        fields.refuse(f"a bbox or a segmentation of {named(annotation)}", "neither")
    return mask_box(segments) if box is None else box


def _area(fields: CocoFields, annotation: dict[str, Any], segments: Segments, box: list[float], size: list[int]) -> float:
    area = fields.area(annotation)
    if area is None:
        area = mask_area(segments, (size[0], size[1])) if segments else float(max(box[2], 0) * max(box[3], 0))
    return area
