"""A folder of images and masks as a segmentation data set.

    images/train/a.jpg    images/validation/b.jpg
    masks/train/a.png     masks/validation/b.png    classes.txt

A mask has the relative path of its image, with the suffix `.png`. `annotations` may stand for `masks`, `training` for `train`,
and `val` or `test` for `validation`. ADE20K's `ADEChallengeData2016` is such a folder as published.
"""

import os
from collections.abc import Sequence
from typing import Any

from etils import epath

from paca_jax.data.class_names import ADE20K_CLASSES
from paca_jax.data.sources.dataset import Dataset, quoted
from paca_jax.data.sources.files import (
    SUFFIXES,
    TRAIN,
    Paths,
    check_split,
    checked_root,
    list_images,
    read_file,
    split_folders,
    subfolders,
)
from paca_jax.errors import UserError

_IMAGES = "images"
_MASKS = ("masks", "annotations")
_CLASSES = "classes.txt"
# The table of classes in `ADEChallengeData2016`.
_ADE20K_TABLE = "objectInfo150.txt"


class MaskFolder(Dataset):
    """One split of a folder of images and masks.

    Images are files with a suffix in `SUFFIXES`, at any depth of the split's folder. Files and folders whose names begin with a
    dot are left out. The folder is listed once; copies of the data set have the same list.

    Attributes:
        name: "folder".
        split: "train" or "validation", and "test" if there is such a folder.
        data_dir: the folder.
    """

    name = "folder"

    def __init__(self, split: str, data_dir: str | os.PathLike[str] | None) -> None:
        root = checked_root(data_dir)
        self.split, self.data_dir = split, os.fspath(root)
        masks = next((name for name in _MASKS if name in subfolders(root)), None)
        if masks is None or not (root / _IMAGES).is_dir():
            raise UserError(
                f"Expected the folders 'images' and 'masks' or 'annotations' in {root}, found {quoted(subfolders(root))}. Lay "
                "out the images and their masks like this."
            )
        splits = split_folders(subfolders(root / _IMAGES), (TRAIN, "training"))
        check_split(root / _IMAGES, split, splits)
        self._masks = f"{self.data_dir}/{masks}/{splits[split]}"
        images = root / _IMAGES / splits[split]
        paths = list_images(images)
        _check_pairs(images, paths, epath.Path(self._masks))
        self._images = Paths(os.fspath(images), paths)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns {"image": bytes, "mask": bytes}; see `Dataset`."""
        return {"image": read_file(self._images[index]), "mask": read_file(self._mask(index))}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The lines of the folder's `classes.txt`, or ADE20K's classes if its own table is there instead.

        Raises:
            UserError: there is no such file, or a line is empty.
        """
        path = epath.Path(self.data_dir) / _CLASSES
        if not path.exists():
            if (path.parent / _ADE20K_TABLE).exists():
                return ADE20K_CLASSES
            raise UserError(f"Expected the names of the classes in {path}, found no such file. Write it, one name per line.")
        names = tuple(line.strip() for line in read_file(os.fspath(path)).decode("utf-8-sig", "replace").rstrip().split("\n"))
        if not all(names):
            raise UserError(
                f"Expected one name of a class on each line of {path}, line {names.index('') + 1} is empty. Fill it."
            )
        return names

    def where(self, index: int) -> str:
        """Returns the paths of an image and of its mask."""
        return f"{self._images[index]} with mask {self._mask(index)}"

    def _mask(self, index: int) -> str:
        return f"{self._masks}/{_mask_of(self._images.relative(index))}"


class Ade20kFolder(MaskFolder):
    """One split of ADE20K's scene parsing benchmark: the folder `ADEChallengeData2016`.

    Attributes:
        name: "ade20k".
        split: "train" or "validation".
        data_dir: the folder.
    """

    name = "ade20k"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The published names of the 150 classes."""
        return ADE20K_CLASSES


def _mask_of(image: str) -> str:
    return image.rpartition(".")[0] + ".png"


def _check_pairs(images: epath.Path, paths: Sequence[str], masks: epath.Path) -> None:
    """Checks that every image has a mask of its own, and every mask an image."""
    if not paths:
        raise UserError(f"Expected images ({', '.join(SUFFIXES)}) in {images}, found none. Add some.")
    if not masks.is_dir():
        raise UserError(f"Expected the masks of {images} in {masks}, found no such folder. Add it.")
    of_mask: dict[str, str] = {}
    for path in paths:
        if of_mask.setdefault(_mask_of(path), path) != path:
            raise UserError(
                f"Expected each mask in {masks} to belong to one image, {_mask_of(path)!r} would be that of both "
                f"{of_mask[_mask_of(path)]!r} and {path!r}. Rename one."
            )
    found = set(list_images(masks))
    missing = sorted(of_mask.keys() - found)
    if missing:
        raise UserError(
            f"Expected a mask for every image, found no {masks / missing[0]} for {images / of_mask[missing[0]]}"
            f"{_and_more(missing)}. Add it or remove the image."
        )
    alone = sorted(name for name in found - of_mask.keys() if name.endswith(".png"))
    if alone:
        raise UserError(
            f"Expected an image for every mask, found none in {images} for {masks / alone[0]}{_and_more(alone)}. Add it or "
            "remove the mask."
        )


def _and_more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
