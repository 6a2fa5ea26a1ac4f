"""Detection data sets made from TFDS data sets with instance maps, such as `scenes`.

They have the features `image`, `instances` (an image whose values are the numbers of objects), and `objects`, a sequence of
`bbox`, `label`, `id` (the object's number in the map) and `area` (in pixels).
"""

import functools
from typing import Any

import numpy as np

from paca_jax.data.codecs.label_maps import decode_mask
from paca_jax.data.codecs.rle import encode_bitmap
from paca_jax.data.sources.dataset import Dataset, image_sizes, quoted
from paca_jax.data.sources.objects import ObjectDataset, Objects
from paca_jax.errors import UserError

FEATURES = ("image", "instances", "objects")
_PARTS = ("bbox", "label", "id", "area")


class InstanceMaps(ObjectDataset):
    """One split as an `ObjectDataset`. No object is a crowd, and the id of a picture is its index."""

    def __init__(self, records: Dataset) -> None:
        """Wraps a data set with the features `FEATURES`."""
        self._records = records
        missing = [part for part in _PARTS if len(records) and part not in records[0]["objects"]]
        if missing:
            raise UserError(
                f"Expected the objects of data set {records.name!r} to have {quoted(_PARTS)}, missing {quoted(missing)}. "
                "Choose another data set."
            )
        self.name, self.split = records.name, records.split
        self.image_ids = np.arange(len(records))
        self.category_ids = tuple(range(1, records.num_classes + 1))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns {"image": bytes, "objects": Objects, "index": index}; see `Dataset`."""
        example = self._records[index]
        return {"image": example["image"], "objects": _objects(example, index), "index": index}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the objects' classes."""
        return self._records.class_names

    @functools.cached_property
    def sizes(self) -> np.ndarray:  # type: ignore[override]
        """Height and width of every picture, read from the header of its file, or from its map if the file is unreadable."""
        sizes = image_sizes(self._records)
        return np.array([size or self.objects(index)["size"] for index, size in enumerate(sizes)], np.int32)

    @functools.cached_property
    def num_objects(self) -> np.ndarray:  # type: ignore[override]
        """The number of objects of every picture."""
        return np.array([len(labels) for labels in self._labels], np.int32)

    @functools.cached_property
    def _labels(self) -> list[np.ndarray]:
        """The labels of the objects of every picture."""
        return [self._records[index]["objects"]["label"] for index in range(len(self))]

    def unseen_classes(self) -> tuple[str, ...]:
        """Returns the names of the classes without an object; see `Dataset`."""
        seen = set().union(*(labels.tolist() for labels in self._labels))
        return tuple(name for label, name in enumerate(self.class_names) if label not in seen)

    def objects(self, index: int) -> Objects:
        """Returns the objects of an example; see `ObjectDataset`."""
        return _objects(self._records[index], index)

    def where(self, index: int) -> str:
        """Returns a description of an example for messages."""
        return self._records.where(index)


def _objects(example: dict[str, Any], index: int) -> Objects:
    instances, objects = decode_mask(example["instances"]), example["objects"]
    height, width = instances.shape
    top, left, bottom, right = objects["bbox"].astype(np.float64).reshape(-1, 4).T
    return Objects(
        boxes=np.stack([left * width, top * height, right * width, bottom * height], 1).astype(np.float32),
        labels=objects["label"].astype(np.int32),
        crowd=np.zeros(len(top), bool),
        segments=[encode_bitmap(instances == number) for number in objects["id"].tolist()],
        image_id=index,
        area=objects["area"].astype(np.float64),
        size=(height, width),
    )
