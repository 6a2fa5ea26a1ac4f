"""What detections are worth: average precision and recall by COCO's own code."""

import contextlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from paca_jax.data import ObjectDataset

# COCO's twelve numbers in its own order: precision and recall, averaged over classes and overlaps (0.5 to 0.95).
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
    """What a model found in one picture.

    Attributes:
        boxes: (n, 4), left, top, right and bottom edge in pixels of the original picture.
        scores: (n,), 0 to 1.
        labels: (n,), whole numbers from 0.
        masks: n run lengths of the original picture's size in COCO's short form, as `paca_jax.data.encode_bitmap` makes them.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Sequence[dict[str, Any]]


class Collected(dict[int, Detections]):
    """What was found in the pictures of a data set, by their index in it."""

    def to_bytes(self) -> bytes:
        """Returns everything as JSON, for another process."""
        content = {}
        for index, (boxes, scores, labels, masks) in self.items():
            content[index] = [np.asarray(part).tolist() for part in (boxes, scores, labels)] + [list(masks)]
        return json.dumps(content).encode()

    @classmethod
    def merged(cls, parts: Iterable[bytes]) -> "Collected":
        """Returns what several processes have collected; of a picture that several have seen, the first one's answer."""
        merged = cls()
        for part in parts:
            for index, (boxes, scores, labels, masks) in json.loads(part).items():
                found = Detections(np.array(boxes).reshape(-1, 4), np.array(scores), np.array(labels, np.int64), masks)
                merged.setdefault(int(index), found)
        return merged


def results_json(dataset: ObjectDataset, detections: Mapping[int, Detections]) -> list[dict[str, Any]]:
    """Returns detections in COCO's results format, for both of its tasks, bbox and segm, at once.

    Args:
        dataset: the pictures; it tells their ids and those of the categories.
        detections: by the pictures' index.
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
    """Returns COCO's twelve numbers for boxes and for masks.

    A picture that `detections` lacks is one in which nothing was found. Objects without a mask do not count for masks.

    Args:
        dataset: the pictures and their true objects.
        detections: by the pictures' index.

    Returns:
        A number for each name in `METRICS`, 0 to 1; as in COCO's code -1 where no object counts.
    """
    results = results_json(dataset, detections)
    truth = [annotation for index in range(len(dataset)) for annotation in dataset.annotations(index)]
    numbers: dict[str, float] = {}
    for kind, task in _KINDS.items():
        counting = [annotation for annotation in truth if kind == "box" or annotation["segmentation"]]
        with contextlib.redirect_stdout(io.StringIO()):  # COCO's code prints
            found = _index(dataset, [{**result, **_found(result, kind)} for result in results])
            evaluation = COCOeval(_index(dataset, counting), found, task)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        numbers |= {f"{kind}_{name}": float(value) for name, value in zip(_NUMBERS, evaluation.stats, strict=True)}
    return numbers


def _found(result: dict[str, Any], kind: str) -> dict[str, Any]:
    """What COCO's code adds to a result before it evaluates boxes or masks."""
    width, height = result["bbox"][2:]
    area = width * height if kind == "box" else float(coco_mask.area(result["segmentation"]))
    return {"area": area, "iscrowd": 0}


def _index(dataset: ObjectDataset, annotations: list[dict[str, Any]]) -> COCO:
    """Returns pictures and annotations as COCO's code takes them."""
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
