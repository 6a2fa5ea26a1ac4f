"""Average precision and recall of detections, computed by COCO's own code."""

import contextlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from paca_jax.data import ObjectDataset
from paca_jax.data.codecs.rle import coco_mask

# COCO's twelve numbers in COCO's order: precision and recall, averaged over classes and overlaps (0.5 to 0.95).
_NUMBERS = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
)
_KINDS = {"box": "bbox", "mask": "segm"}
METRICS = tuple(f"{kind}_{number}" for kind in _KINDS for number in _NUMBERS)


class Detections(NamedTuple):
    """The objects that a model found in one picture.

    Attributes:
        boxes: (n, 4): left, top, right and bottom edges in pixels of the original picture.
        scores: (n,): 0 to 1.
        labels: (n,): class indices from 0.
        masks: n masks of the original picture's size, run-length encoded; for evaluation by `paca_jax.data.encode_bitmap`.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Sequence[dict[str, Any]]


class Collected(dict[int, Detections]):
    """The detections of pictures by their index in the data set.

    Attributes:
        finite: whether the outputs of the model are, for all pictures.
    """

    finite: bool = True

    def to_bytes(self) -> bytes:
        """Returns all detections as JSON, to send to other processes."""
        content = {}
        for index, (boxes, scores, labels, masks) in self.items():
            content[index] = [np.asarray(part).tolist() for part in (boxes, scores, labels)] + [list(masks)]
        return json.dumps([self.finite, content]).encode()

    @classmethod
    def merged(cls, parts: Iterable[bytes]) -> "Collected":
        """Merges the detections of several processes; if two have the same picture, the first one wins."""
        merged = cls()
        for part in parts:
            finite, content = json.loads(part)
            merged.finite &= finite
            for index, (boxes, scores, labels, masks) in content.items():
                found = Detections(np.array(boxes).reshape(-1, 4), np.array(scores), np.array(labels, np.int64), masks)
                merged.setdefault(int(index), found)
        return merged


def results_json(dataset: ObjectDataset, detections: Mapping[int, Detections]) -> list[dict[str, Any]]:
    """Returns detections in COCO's results format, with boxes and masks together.

    Args:
        dataset: the data set, which knows the ids of pictures and categories.
        detections: the detections by the index of the picture.
    """
    results = []
    for index in sorted(detections):
        found = detections[index]
        image_id = int(dataset.image_ids[index])
        boxes = np.asarray(found.boxes, np.float64).reshape(-1, 4)
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        for box, score, label, mask in zip(sides.tolist(), found.scores, found.labels, found.masks, strict=True):
            results.append(
                {
                    "image_id": image_id,
                    "category_id": dataset.category_ids[int(label)],
                    "bbox": box,
                    "score": float(score),
                    "segmentation": mask,
                }
            )
    return results


def evaluate(dataset: ObjectDataset, detections: Mapping[int, Detections]) -> dict[str, float]:
    """Returns COCO's twelve numbers for boxes and, if the data set has masks, for masks.

    A picture that is missing from `detections` counts as one without any. True objects without a mask do not count for masks.

    Args:
        dataset: the pictures and their true objects.
        detections: the detections by the index of the picture.

    Returns:
        A number from 0 to 1 for each name in `METRICS`, or NaN, for which COCO's code has -1, if there is no object that it
        would count, such as a large one. As in COCO's code, averages leave out the classes that `absent_classes` names.
    """
    from pycocotools.cocoeval import COCOeval

    results = results_json(dataset, detections)
    truth = [annotation for index in range(len(dataset)) for annotation in dataset.annotations(index)]
    numbers: dict[str, float] = {}
    for kind in _kinds(dataset):
        counting = [annotation for annotation in truth if kind == "box" or annotation["segmentation"]]
        with contextlib.redirect_stdout(io.StringIO()):  # COCO's code prints
            found = _index(dataset, [{**result, **_added_fields(result, kind)} for result in results])
            evaluation = COCOeval(_index(dataset, counting), found, _KINDS[kind])
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        values = (float(value) if value >= 0 else math.nan for value in evaluation.stats)
        numbers |= {f"{kind}_{name}": value for name, value in zip(_NUMBERS, values, strict=True)}
    return numbers


def _kinds(dataset: ObjectDataset) -> tuple[str, ...]:
    """Returns what is evaluated on a data set: "box" and, if it has masks, "mask"."""
    return tuple(_KINDS) if dataset.has_masks else ("box",)


def absent_classes(dataset: ObjectDataset) -> dict[str, tuple[str, ...]]:
    """Returns the names of the classes that averages leave out, by "box" and "mask": no object of them counts."""
    shown: dict[str, set[int]] = {kind: set() for kind in _kinds(dataset)}
    for index in range(len(dataset)):
        objects = dataset.objects(index)
        for label, crowd, segments in zip(objects["labels"].tolist(), objects["crowd"], objects["segments"], strict=True):
            for kind, labels in shown.items():
                if not crowd and (kind == "box" or segments):
                    labels.add(label)
    return {
        kind: tuple(name for label, name in enumerate(dataset.class_names) if label not in labels)
        for kind, labels in shown.items()
    }


def _added_fields(result: dict[str, Any], kind: str) -> dict[str, Any]:
    """Returns the fields that COCO's code adds to a result before it evaluates boxes or masks."""
    width, height = result["bbox"][2:]
    area = width * height if kind == "box" else float(coco_mask().area(result["segmentation"]))
    return {"area": area, "iscrowd": 0}


def _index(dataset: ObjectDataset, annotations: list[dict[str, Any]]) -> Any:
    """Returns pictures and annotations as the object that COCO's code evaluates."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [
            {"id": int(image_id), "height": height, "width": width}
            for image_id, (height, width) in zip(dataset.image_ids, dataset.sizes.tolist(), strict=True)
        ],
        "categories": [
            {"id": category, "name": name} for category, name in zip(dataset.category_ids, dataset.class_names, strict=True)
        ],
        "annotations": [{**annotation, "id": number} for number, annotation in enumerate(annotations, 1)],
    }
    coco.createIndex()
    return coco
