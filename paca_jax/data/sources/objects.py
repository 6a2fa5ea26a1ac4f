"""The interface of detection data sets: the objects of every picture."""

import abc
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Bool, Float, Int

from paca_jax.data.sources.dataset import Dataset

# The mask of an object: polygons, each (2k,) float64 x, y, x, y, ... in pixels; or COCO's run-length encoding of a bitmap,
# {"size": [height, width], "counts": list or bytes}. An empty list is an object without a mask.
Segments = list[np.ndarray] | dict[str, Any]


class Objects(TypedDict):
    """The objects of one picture, in the order of the data set.

    Attributes:
        boxes: (n, 4) float32: left, top, right and bottom edge in pixels.
        labels: (n,) int32.
        crowd: (n,) bool: whether a row is a region of many objects, which training leaves out and evaluation ignores.
        segments: n masks.
        image_id: the picture's id in results.
        area: (n,) float64, in pixels, as the data set gives it.
        size: height and width in pixels of the picture that was annotated.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    segments: list[Segments]
    image_id: int
    area: np.ndarray
    size: tuple[int, int]


class ObjectDataset(Dataset):
    """One split of a detection data set: `dataset[i]` is {"image": bytes, "objects": Objects, "index": i}.

    Attributes:
        image_ids: (examples,) int64, the ids of the pictures in results.
        sizes: (examples, 2) int32, height and width of every picture in pixels.
        num_objects: (examples,) int32, the objects of every picture, without crowds.
        category_ids: the ids of the classes in results, in label order.
        has_masks: whether masks are evaluated; otherwise each is the box of its object.
    """

    image_ids: np.ndarray
    sizes: np.ndarray
    num_objects: np.ndarray
    category_ids: tuple[int, ...]
    has_masks: bool = True

    @abc.abstractmethod
    def objects(self, index: int) -> Objects:
        """Returns the objects of example `index` without reading its picture's pixels; errors as for `dataset[index]`."""

    def coco_boxes(self, index: int) -> np.ndarray:
        """Returns the boxes of example `index` in COCO's form: (n, 4) float64, left, top, width and height in pixels."""
        edges = self.objects(index)["boxes"].astype(np.float64)
        return np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], 1)

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """Returns the objects of example `index` in the form of a COCO file, without annotation ids."""
        objects = self.objects(index)
        return [
            {
                "image_id": objects["image_id"],
                "category_id": self.category_ids[objects["labels"][k]],
                "bbox": box,
                "area": float(objects["area"][k]),
                "iscrowd": int(objects["crowd"][k]),
                "segmentation": _as_coco(objects["segments"][k]),
            }
            for k, box in enumerate(self.coco_boxes(index).tolist())
        ]


def left_out_of_training(
    boxes: Float[np.ndarray, "m 4"],
    areas: Float[np.ndarray, " m"],
    has_mask: Bool[np.ndarray, " m"],
    sizes: Int[np.ndarray, "m 2"],
) -> dict[str, Bool[np.ndarray, " m"]]:
    """Returns which objects training leaves out besides crowds, as mmdetection does, by the reason.

    Args:
        boxes: left, top, right and bottom edges in pixels.
        areas: in pixels, as the data set gives them.
        has_mask: whether each object has a mask.
        sizes: height and width in pixels of the picture of each object.
    """
    left, top, right, bottom = boxes.T
    height, width = sizes.T
    is_small = (right - left < 1) | (bottom - top < 1)
    return {
        "without a mask": ~has_mask,
        "with an area of 0": areas <= 0,
        "with a box below one pixel in width or height": is_small,
        "with a box outside the picture": ~is_small & ((left >= width) | (top >= height) | (right <= 0) | (bottom <= 0)),
    }


def _as_coco(segments: Segments) -> list[list[float]] | dict[str, Any]:
    """Returns the mask of an object in the form of a COCO file."""
    return segments if isinstance(segments, dict) else [polygon.tolist() for polygon in segments]
