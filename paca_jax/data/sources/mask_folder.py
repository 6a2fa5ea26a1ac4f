"""A folder of images and masks as a segmentation data set.

    images/train/a.jpg    images/validation/b.jpg
    masks/train/a.png     masks/validation/b.png    classes.txt

A mask has the relative path of its image, with a suffix of `MASK_SUFFIXES`. `annotations` may stand for `masks`, `training` for
`train`, and `val` or `test` for `validation`. ADE20K's `ADEChallengeData2016` is such a folder as published.
"""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from etils import epath

from paca_jax.data.class_names import ADE20K_CLASSES
from paca_jax.data.codecs.label_maps import MASK_SUFFIXES
from paca_jax.data.sources.dataset import Dataset, quoted
from paca_jax.data.sources.files import (
    SUFFIXES,
    TRAIN,
    LeftOut,
    Paths,
    check_split,
    checked_root,
    list_files,
    log_beside,
    read_lines,
    split_folders,
    subfolders,
)
from paca_jax.errors import UserError
from paca_jax.files import read_file

_IMAGES = "images"
_MASKS = ("masks", "annotations")
_CLASSES = "classes.txt"
# The table of classes in `ADEChallengeData2016`.
_ADE20K_TABLE = "objectInfo150.txt"


class MaskFolder(Dataset):
    """One split of a folder of images and masks.

    Images are files with a suffix in `SUFFIXES`, masks with one in `MASK_SUFFIXES`, at any depth of the split's folder; other
    files are counted and logged. Files and folders whose names begin with a dot are left out. The folder is listed once; copies
    of the data set have the same list.

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
        folders = subfolders(root / _IMAGES)
        splits = split_folders(folders, (TRAIN, "training"))
        check_split(root / _IMAGES, split, splits)
        if split == TRAIN:
            log_beside(root / _IMAGES, folders, splits)
        images, masks = root / _IMAGES / splits[split], root / masks / splits[split]
        of_images = _pairs(images, masks)
        self._images = Paths(os.fspath(images), list(of_images))
        self._masks = Paths(os.fspath(masks), list(of_images.values()))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns {"image": bytes, "mask": bytes}; see `Dataset`."""
        return {"image": read_file(self._images[index]), "mask": read_file(self._masks[index])}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The lines of the folder's `classes.txt`, or ADE20K's classes if its own table is there instead.

        Raises:
            UserError: there is no such file, it is not text in UTF-8 or marked UTF-16, a line is empty, or a name occurs twice.
        """
        path = epath.Path(self.data_dir) / _CLASSES
        if not path.exists():
            if (path.parent / _ADE20K_TABLE).exists():
                return ADE20K_CLASSES
            raise UserError(f"Expected the names of the classes in {path}, found no such file. Write it, one name per line.")
        names = tuple(read_lines(os.fspath(path)))
        if not all(names):
            raise UserError(
                f"Expected one name of a class on each line of {path}, line {names.index('') + 1} is empty. Fill it."
            )
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise UserError(f"Expected a different name on each line of {path}, got {name!r} on {count} lines. Correct it.")
        return names

    def where(self, index: int) -> str:
        """Returns the paths of an image and of its mask."""
        return f"{self._images[index]} with mask {self._masks[index]}"


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


def _pairs(images: epath.Path, masks: epath.Path) -> dict[str, str]:
    """Returns the mask of every image, which each belong to one another alone; both as paths relative to their folders."""
    left_out, no_masks = LeftOut(), LeftOut()
    paths = list_files(images, left_out)
    if not paths:
        raise UserError(f"Expected images ({', '.join(SUFFIXES)}) in {images}, found {left_out}. Add some.")
    if not masks.is_dir():
        raise UserError(f"Expected the masks of {images} in {masks}, found no such folder. Add it.")
    of_image = _by_stem(images, paths, "images")
    of_mask = _by_stem(masks, list_files(masks, no_masks, MASK_SUFFIXES), "masks")
    missing = sorted(of_image.keys() - of_mask.keys())
    if missing:
        besides = f"; {masks} has other files: {no_masks}" if no_masks else ""
        raise UserError(
            f"Expected a mask for every image, found no {masks / missing[0]}.png for {images / of_image[missing[0]]}"
            f"{_and_more(missing)}{besides}. Add it or remove the image."
        )
    alone = sorted(of_mask.keys() - of_image.keys())
    if alone:
        raise UserError(
            f"Expected an image for every mask, found none in {images} for {masks / of_mask[alone[0]]}{_and_more(alone)}. Add "
            "it or remove the mask."
        )
    left_out.log(images)
    no_masks.log(masks)
    return {path: of_mask[stem] for stem, path in of_image.items()}


def _by_stem(folder: epath.Path, paths: Sequence[str], kind: str) -> dict[str, str]:
    """Returns the file of each path without its suffix, by which images and masks belong together."""
    found: dict[str, str] = {}
    for path in paths:
        stem = path.rpartition(".")[0]
        if found.setdefault(stem, path) != path:
            raise UserError(
                f"Expected images and masks to belong together by their paths without suffix, the {kind} {found[stem]!r} and "
                f"{path!r} in {folder} have the same. Rename or remove one."
            )
    return found


def _and_more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
