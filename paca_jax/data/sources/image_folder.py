"""A folder of images as a data set: one subfolder per class.

Either the class folders are in the folder itself, and about a tenth of each class is held out for validation; or the folder has
the subfolders `train` and `validation`, `val` or `test`, each with the same class folders.
"""

import hashlib
import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

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

HELD_OUT = 0.1


class ImageFolder(Dataset):
    """One split of a folder of images; a label is the position of its class among the sorted names of the class folders.

    Images are files with a suffix in `SUFFIXES`, at any depth of their class folder. Files and folders whose names begin with
    a dot are left out. The folder is listed once; copies of the data set have the same list.

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
        images = _list_pair(root, splits, split) if is_pair else _list_single(root, folders, split)
        paths = list(itertools.chain.from_iterable(images.values()))
        if not paths:
            raise UserError(f"Expected a class of two or more images in {root}, to hold one out, found none. Add images.")
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

    def where(self, index: int) -> str:
        """Returns the path of an image."""
        return self._paths[index]


def _list_single(root: epath.Path, classes: Sequence[str], split: str) -> dict[str, list[str]]:
    """Returns the images of each class in a folder of class folders."""
    check_split(root, split, (TRAIN, "validation", "all"))
    _check_classes(root, classes)
    images = {name: _images(root, name) for name in classes}
    if split == "all":
        return images
    held_out = set().union(*(_held_out(paths) for paths in images.values()))
    wanted = split == "validation"
    return {name: [path for path in paths if (path in held_out) == wanted] for name, paths in images.items()}


def _list_pair(root: epath.Path, splits: dict[str, str], split: str) -> dict[str, list[str]]:
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
    return {name: _images(root, f"{splits[split]}/{name}") for name in classes}


def _check_classes(folder: epath.Path, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise UserError(
            f"Expected a folder for each of two or more classes in {folder}, found {quoted(classes)}. Give a folder that holds "
            "class folders, or the folders 'train' and 'validation' with class folders."
        )


def _images(root: epath.Path, folder: str) -> list[str]:
    """Returns the sorted paths of the images below a class folder, relative to the root and with slashes."""
    found = list_images(root / folder)
    if not found:
        raise UserError(
            f"Expected images ({', '.join(SUFFIXES)}) in the class folder {root / folder}, found none. Add some or remove "
            "the folder."
        )
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
