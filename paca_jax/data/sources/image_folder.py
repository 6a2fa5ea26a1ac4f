"""A folder of images as a data set: one subfolder per class.

Either the class folders are in the folder itself, and about a tenth of each class is held out for validation; or the folder has
the subfolders `train` and `validation`, `val` or `test`, each with the same class folders.
"""

import hashlib
import itertools
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

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
    loose_files,
    split_folders,
    subfolders,
)
from paca_jax.errors import UserError
from paca_jax.files import read_file

logger = logging.getLogger(__name__)

HELD_OUT = 0.1


class ImageFolder(Dataset):
    """One split of a folder of images; a label is the position of its class among the sorted names of the class folders.

    Images are files with a suffix in `SUFFIXES`, at any depth of their class folder; other files are counted and logged. Files
    and folders whose names begin with a dot are left out. The folder is listed once; copies of the data set have the same list.

    Attributes:
        name: "folder".
        split: "train" or "validation"; also "all" if the class folders are in the folder itself, and "test" if there is one.
        data_dir: the folder.
    """

    name = "folder"

    def __init__(self, split: str, data_dir: str | os.PathLike[str] | None) -> None:
        root = checked_root(data_dir)
        self.split, self.data_dir = split, os.fspath(root)
        folders = subfolders(root)
        splits = split_folders(folders)
        is_pair = {TRAIN, "validation"}.issubset(splits)
        left_out = LeftOut()
        images = _list_pair(root, splits, split, left_out) if is_pair else _list_single(root, folders, split, left_out)
        paths = list(itertools.chain.from_iterable(images.values()))
        if not paths:
            raise UserError(f"Expected a class of two or more images in {root}, to hold one out, found none. Add images.")
        if is_pair and split == TRAIN:
            log_beside(root, folders, splits)
        if is_pair or split != "validation":  # the training split has logged what the folder of both leaves out
            left_out.log(root)
        self._class_names = tuple(images)
        self._labels = np.repeat(np.arange(len(images)), [len(of_class) for of_class in images.values()])
        self._paths = Paths(self.data_dir, paths)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns {"image": bytes, "label": int}; see `Dataset`."""
        return {"image": read_file(self._paths[index]), "label": int(self._labels[index])}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the class folders, sorted."""
        return self._class_names

    def unseen_classes(self) -> tuple[str, ...]:
        """Returns the names of the classes without an image in this split: those of one image in all, which is trained on."""
        counts = np.bincount(self._labels, minlength=len(self._class_names))
        return tuple(name for name, count in zip(self._class_names, counts, strict=True) if count == 0)

    def where(self, index: int) -> str:
        """Returns the path of an image."""
        return self._paths[index]


def _list_single(root: epath.Path, classes: Sequence[str], split: str, left_out: LeftOut) -> dict[str, list[str]]:
    """Returns the images of each class in a folder of class folders."""
    check_split(root, split, (TRAIN, "validation", "all"))
    _check_classes(root, classes)
    images = {name: _images(root, name, left_out) for name in classes}
    left_out.add(loose_files(root))
    if split == "all":
        return images
    held_out = set().union(*(_held_out(paths) for paths in images.values()))
    wanted = split == "validation"
    if not wanted:  # the training split logs what is said about both
        logger.info(
            "Holds out %d of %d images in %s for validation: about a tenth of each class and at least one, chosen by hashes of "
            "their names. To choose yourself, make the folders 'train' and 'validation', each with the folders of the classes.",
            *(len(held_out), sum(map(len, images.values())), root),
        )
    return {name: [path for path in paths if (path in held_out) == wanted] for name, paths in images.items()}


def _list_pair(root: epath.Path, splits: dict[str, str], split: str, left_out: LeftOut) -> dict[str, list[str]]:
    """Returns the images of each class in a folder with the folders of a training and a validation set."""
    check_split(root, split, splits)
    classes, other = subfolders(root / TRAIN), root / splits["validation" if split == TRAIN else split]
    _check_classes(root / TRAIN, classes)
    different = sorted(set(classes) ^ set(subfolders(other)))
    if different:
        raise UserError(
            f"Expected the same class folders in {root / TRAIN} and {other}, only one of them has {quoted(different)}. Make "
            "them alike."
        )
    left_out.add(loose_files(root / splits[split]))
    return {name: _images(root, f"{splits[split]}/{name}", left_out) for name in classes}


def _check_classes(folder: epath.Path, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise UserError(
            f"Expected a folder for each of two or more classes in {folder}, found {quoted(classes)}. Give a folder that holds "
            "class folders, or the folders 'train' and 'validation' with class folders."
        )


def _images(root: epath.Path, folder: str, left_out: LeftOut) -> list[str]:
    """Returns the sorted paths of the images below a class folder, relative to the root and with slashes."""
    others = LeftOut()
    found = list_files(root / folder, others)
    if not found:
        raise UserError(
            f"Expected images ({', '.join(SUFFIXES)}) in the class folder {root / folder}, found {others}. Add some or remove "
            "the folder."
        )
    left_out.update(others)
    return [f"{folder}/{path}" for path in found]


def _held_out(paths: Sequence[str]) -> set[str]:
    """Returns the held-out images of a class: those with a low hash of their path, at least one, and never all."""
    if len(paths) < 2:
        return set()
    ranked = sorted((_hash(path), path) for path in paths)
    count = sum(value < HELD_OUT for value, _ in ranked)
    return {path for _, path in ranked[: min(max(count, 1), len(ranked) - 1)]}


def _hash(path: str) -> float:
    """Returns a pseudo-random number from 0 to 1 that depends on the path alone."""
    return int.from_bytes(hashlib.blake2b(path.encode(errors="surrogateescape"), digest_size=8).digest()) / 2**64
