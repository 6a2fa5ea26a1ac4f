"""COCO 2017 and other folders with annotations in COCO's format.

    annotations/instances_train2017.json    annotations/instances_val2017.json
    train2017/000000000009.jpg              val2017/000000000139.jpg

The NAME of the training split is `train2017` or `train`; of validation `val2017`, `validation`, `val` or `valid`; of test
`test`. The annotations are `annotations/instances_NAME.json`, `annotations/NAME.json` or `NAME/_annotations.coco.json`. The
images are in `NAME`, `images/NAME`, `images` or the folder itself: the first of these that has the first image.
"""

import dataclasses
import os
from typing import Any

import numpy as np
from etils import epath

from paca_jax.data.sources.coco_annotations import read_coco
from paca_jax.data.sources.dataset import quoted
from paca_jax.data.sources.files import Paths, checked_root, read_file
from paca_jax.data.sources.objects import ObjectDataset, Objects
from paca_jax.errors import UserError

# The possible names of a split in the names of its files.
_NAMES = {
    "train": ("train2017", "train"),
    "train_all": ("train2017", "train"),
    "validation": ("val2017", "validation", "val", "valid"),
    "test": ("test",),
}
_ANNOTATIONS = ("annotations/instances_{}.json", "annotations/{}.json", "{}/_annotations.coco.json")
_IMAGES = ("{}", "images/{}", "images", ".")
# The split "train" leaves out pictures with a smaller side, as mmdetection does.
MIN_SIDE = 32


class CocoFolder(ObjectDataset):
    """One split of a folder with annotations in COCO's format; the module's docstring describes the layout.

    The split "train" has the training pictures with at least one annotation (a crowd counts) and sides of at least 32 pixels:
    117,266 of COCO's 118,287. "train_all" has all training pictures, "validation" and "test" have all of theirs.

    Attributes:
        name: "coco".
        split: "train", "train_all", "validation" or "test".
        data_dir: the folder.
    """

    name = "coco"

    def __init__(self, split: str, data_dir: str | os.PathLike[str] | None) -> None:
        root = checked_root(data_dir)
        self.split, self.data_dir = split, os.fspath(root)
        name, path = _find(root, split)
        file = read_coco(path)
        if len(file.image_ids) == 0:
            raise UserError(f"Expected images in the COCO file {path}, got none. Give another file.")
        if len(file.boxes) and not file.has_masks:
            raise UserError(
                f"Expected segmentations of the objects in the COCO file {path}, got only boxes. Add polygons or run lengths."
            )
        annotations = np.diff(file.first)
        is_kept = (annotations > 0) & (file.sizes.min(1) >= MIN_SIDE) if split == "train" else annotations >= 0
        self._kept = np.flatnonzero(is_kept)
        if len(self._kept) == 0:
            raise UserError(
                f"Expected images with annotations and sides of {MIN_SIDE} pixels or more in the COCO file {path}, got none. "
                "Give another file."
            )
        self.image_ids, self.sizes = file.image_ids[self._kept], file.sizes[self._kept]
        objects = np.concatenate([[0], np.cumsum(~file.crowd)])
        self.num_objects = np.diff(objects[file.first])[self._kept].astype(np.int32)
        self.category_ids = file.category_ids
        file_names = [file.file_names[image] for image in self._kept.tolist()]
        self._paths = Paths(_images(root, name, file_names[0]), file_names)
        self._file = dataclasses.replace(file, file_names=())

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns {"image": bytes, "objects": Objects, "index": index}; see `Dataset`."""
        return {"image": read_file(self._paths[index]), "objects": self.objects(index), "index": index}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the categories, ordered by id."""
        return self._file.class_names

    def objects(self, index: int) -> Objects:
        """Returns the objects of an example; see `ObjectDataset`."""
        numbers, image = self._numbers(index)
        edges = self._file.boxes[numbers].copy()
        edges[:, 2:] += edges[:, :2]
        return Objects(
            boxes=edges.astype(np.float32),
            labels=self._file.labels[numbers],
            crowd=self._file.crowd[numbers],
            segments=[self._file.segments(number, image) for number in numbers],
            image_id=int(self.image_ids[index]),
            area=self._file.areas[numbers],
            size=tuple(self.sizes[index].tolist()),
        )

    def coco_boxes(self, index: int) -> np.ndarray:
        """Returns the boxes of an example exactly as in the file; see `ObjectDataset`."""
        return self._file.boxes[self._numbers(index)[0]]

    def where(self, index: int) -> str:
        """Returns the id and the path of an image."""
        return f"image {self.image_ids[index]} ({self._paths[index]})"

    def _numbers(self, index: int) -> tuple[np.ndarray, int]:
        """Returns the positions of an example's objects, and of its image, in the file."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.data_dir} has images 0 to {len(self) - 1} of split {self.split}, not {index}")
        image = int(self._kept[index])
        return np.arange(self._file.first[image], self._file.first[image + 1]), image


def _find(root: epath.Path, split: str) -> tuple[str, str]:
    """Returns the name of a split in the names of its files, and the path of its annotations."""
    if split not in _NAMES:
        raise UserError(f"Expected one of the splits {quoted(_NAMES)} of a COCO folder, got {split!r}. Correct the split.")
    for name in _NAMES[split]:
        for pattern in _ANNOTATIONS:
            if (root / pattern.format(name)).exists():
                return name, os.fspath(root / pattern.format(name))
    raise UserError(
        f"Expected the annotations of split {split!r} at {root / _ANNOTATIONS[0].format(_NAMES[split][0])}, found neither that "
        "file nor one of its other names. See paca_jax/data/sources/coco.py, and correct dataset.data_dir."
    )


def _images(root: epath.Path, name: str, first: str) -> str:
    """Returns the folder that the file names of a split's images are relative to."""
    folders = [root / pattern.format(name) for pattern in _IMAGES]
    for folder in folders:
        if (folder / first).exists():
            return os.fspath(folder)
    raise UserError(
        f"Expected the image {first} in {quoted(map(os.fspath, folders))}, found it in none of them. Put the images of the "
        "COCO file there."
    )
