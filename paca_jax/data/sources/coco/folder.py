"""COCO 2017 and other folders with annotations in COCO's format, as a detection data set."""

import dataclasses
import logging
import os
from typing import Any

import numpy as np
from jaxtyping import Float64

from paca_jax.data.sources.coco.annotations import read_coco
from paca_jax.data.sources.coco.layout import find_annotations, find_images, images_of_split
from paca_jax.data.sources.files import Paths, checked_root
from paca_jax.data.sources.objects import ObjectDataset, Objects, left_out_of_training
from paca_jax.errors import UserError
from paca_jax.files import read_file

logger = logging.getLogger(__name__)


class CocoFolder(ObjectDataset):
    """One split of a folder with annotations in COCO's format; the module `layout` describes it.

    The split "train" has the training pictures with at least one annotation (a crowd counts) and sides of at least 32 pixels:
    117,266 of COCO's 118,287. "train_all" has all training pictures, "validation" and "test" have all of theirs. What is left
    out, and the objects that training leaves out, are counted in the log.

    Attributes:
        name: "coco".
        split: "train", "train_all", "validation" or "test".
        data_dir: the folder.
    """

    name = "coco"

    def __init__(
        self, split: str, data_dir: str | os.PathLike[str] | None, *, boxes_only: bool = False, skip_missing: bool = False
    ) -> None:
        """Reads the annotations and looks for the images.

        Args:
            split: see above.
            data_dir: the folder.
            boxes_only: whether the mask of every object is its box, so that masks are neither needed nor evaluated.
            skip_missing: whether images that do not exist are left out rather than refused.

        Raises:
            UserError: the folder is not laid out like this, its annotations are wrong, or there is nothing to train on.
        """
        root = checked_root(data_dir)
        self.split, self.data_dir, self.has_masks = split, os.fspath(root), not boxes_only
        name, path = find_annotations(root, split)
        file = read_coco(path)
        if len(file.image_ids) == 0:
            raise UserError(f"Expected images in the COCO file {path}, got none. Give another file.")
        if len(file.boxes) and not boxes_only and not file.masks.present.any():
            raise UserError(
                f"Expected segmentations of the objects in the COCO file {path}, got only boxes. Add polygons or run lengths, "
                "or train on boxes alone with dataset.boxes_only=True."
            )
        kept, paths = find_images(root, name, file, images_of_split(file, split), skip_missing)
        self._kept = np.array(kept)
        self.image_ids, self.sizes = file.image_ids[self._kept], file.sizes[self._kept]
        objects = np.concatenate([[0], np.cumsum(~file.crowd)])
        self.num_objects = np.diff(objects[file.first])[self._kept].astype(np.int32)
        self.category_ids = file.category_ids
        self._paths = Paths(self.data_dir, paths)
        self._file = dataclasses.replace(file, file_names=())
        self._unseen = self._log_left_out()

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns {"image": bytes, "objects": Objects, "index": index}; see `Dataset`."""
        return {"image": read_file(self._paths[index]), "objects": self.objects(index), "index": index}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the categories, ordered by id."""
        return self._file.class_names

    def unseen_classes(self) -> tuple[str, ...]:
        """Returns the names of the categories without an object that is trained on; see `Dataset`."""
        return self._unseen

    def objects(self, index: int) -> Objects:
        """Returns the objects of an example; see `ObjectDataset`."""
        numbers, image = self._numbers(index)
        boxes = _edges(self._file.boxes[numbers])
        if self.has_masks:
            segments = [self._file.segments(number, image) for number in numbers]
        else:
            segments = [[corners] for corners in boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]]]
        return Objects(
            boxes=boxes.astype(np.float32),
            labels=self._file.labels[numbers],
            crowd=self._file.crowd[numbers],
            segments=segments,
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

    def _log_left_out(self) -> tuple[str, ...]:
        """Logs which objects training leaves out, and returns the names of the categories that it does not see."""
        file = self._file
        image = np.repeat(np.arange(len(file.image_ids)), np.diff(file.first))
        trained = np.isin(image, self._kept)
        everything = f"{np.count_nonzero(trained)} objects of split {self.split!r} in the COCO file {file.path}"
        edges, sizes = _edges(file.boxes), file.sizes[image]

        def counted(reason: str, rows: np.ndarray) -> list[str]:
            first = [f"annotation {file.ids[row]} of image {file.image_ids[image[row]]}" for row in rows[:1].tolist()]
            return [f"{len(rows)} {reason} (the first is {named})" for named in first]

        beyond = trained & (edges[:, 2:] > sizes[:, ::-1] + 1).any(1)
        for text in counted("reach beyond their picture", np.flatnonzero(beyond)):
            logger.warning("Of the %s, %s. A bbox is left, top, width and height in pixels.", everything, text)
        has_mask = file.masks.present | (not self.has_masks)
        wrong = left_out_of_training(edges.astype(np.float32), file.areas, has_mask, sizes)
        crowds = counted("with iscrowd 1", np.flatnonzero(trained & file.crowd))
        trained &= ~file.crowd
        faults = [text for reason, rows in wrong.items() for text in counted(reason, np.flatnonzero(trained & rows))]
        trained &= ~np.any(list(wrong.values()), 0)
        reasons = ", ".join(crowds + faults)
        if not trained.any() and self.split.startswith("train"):
            raise UserError(f"Expected objects to train on, got {everything}: {reasons or 'none'}. Correct the file.")
        if reasons:
            logger.log(logging.WARNING if faults else logging.INFO, "Of the %s, training leaves out %s.", everything, reasons)
        seen = set(file.labels[trained].tolist())
        return tuple(name for label, name in enumerate(file.class_names) if label not in seen)


def _edges(boxes: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, "m 4"]:
    """Returns the left, top, right and bottom edges of boxes given by left, top, width and height."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
