"""A folder of images and masks as a data set of segmentation.

    images/train/a.jpg    images/validation/b.jpg
    masks/train/a.png     masks/validation/b.png    classes.txt

A mask has the place and the name of its image, and ends with `.png`. `annotations` does as well as `masks`, `training` as
`train`, and `val` or `test` as `validation`: ADE20K's `ADEChallengeData2016` is such a folder as it comes.
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
# The table of classes that `ADEChallengeData2016` comes with.
_ADE20K_TABLE = "objectInfo150.txt"


class FolderOfMasks(Dataset):
    """One split of a folder of images and masks.

    Images are files of a suffix in `SUFFIXES`, at any depth of the split's folder. Files and folders whose names begin with a
    dot are left out. The folder is listed once, and copies of the data set share that list.

    Attributes:
      name: "folder".
      split: "train" or "validation", and "test" where there is such a folder.
      data_dir: the folder.
    """

    name = "folder"

    def __init__(self, split: str, data_dir: str | os.PathLike[str] | None) -> None:
        root = checked_root(data_dir)
        self.split, self.data_dir = split, os.fspath(root)
        masks = next((name for name in _MASKS if name in subfolders(root)), None)
        if masks is None or not (root / _IMAGES).is_dir():
            raise UserError(
                f"Expected the folders 'images' and 'masks' or 'annotations' in {root}, found {quoted(subfolders(root))}; lay "
                "the images and their masks out like this."
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
        """The lines of the folder's `classes.txt`; ADE20K's classes where its own table is there instead.

        Raises:
          UserError: there is no such file, or a line is empty.
        """
        path = epath.Path(self.data_dir) / _CLASSES
        if not path.exists():
            if (path.parent / _ADE20K_TABLE).exists():
                return ADE20K_CLASSES
            raise UserError(f"Expected the names of the classes in {path}, found no such file; write it, one name a line.")
        names = tuple(line.strip() for line in read_file(os.fspath(path)).decode("utf-8-sig", "replace").rstrip().split("\n"))
        if not all(names):
            raise UserError(
                f"Expected one name of a class on each line of {path}, line {names.index('') + 1} is empty; fill it."
            )
        return names

    def where(self, index: int) -> str:
        """Returns the paths of an image and of its mask."""
        return f"{self._images[index]} with mask {self._mask(index)}"

    def _mask(self, index: int) -> str:
        return f"{self._masks}/{_mask_of(self._images.relative(index))}"


class Ade20k(FolderOfMasks):
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
    """Refuses images without a mask of their own, and masks without an image."""
    if not paths:
        raise UserError(f"Expected images ({', '.join(SUFFIXES)}) in {images}, found none; add some.")
    if not masks.is_dir():
        raise UserError(f"Expected the masks of {images} in {masks}, found no such folder; add it.")
    of_mask: dict[str, str] = {}
    for path in paths:
        if of_mask.setdefault(_mask_of(path), path) != path:
            raise UserError(
                f"Expected each mask in {masks} to belong to one image, {_mask_of(path)!r} would be that of both "
                f"{of_mask[_mask_of(path)]!r} and {path!r}; rename one."
            )
    found = set(list_images(masks))
    lacking = sorted(of_mask.keys() - found)
    if lacking:
        raise UserError(
            f"Expected a mask for every image, found no {masks / lacking[0]} for {images / of_mask[lacking[0]]}"
            f"{_and_more(lacking)}; add it or remove the image."
        )
    alone = sorted(name for name in found - of_mask.keys() if name.endswith(".png"))
    if alone:
        raise UserError(
            f"Expected an image for every mask, found none in {images} for {masks / alone[0]}{_and_more(alone)}; add it or "
            "remove the mask."
        )


def _and_more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
