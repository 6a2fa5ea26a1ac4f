"""A folder of images as a data set: one sub-folder a class.

Either the class folders lie in the folder itself, and about a tenth of each class is held out for validation; or it has the
sub-folders `train` and `validation`, `val` or `test`, each with the same class folders.
"""

import hashlib
import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from paca_jax.data.dataset import Dataset, quoted
from paca_jax.errors import UserError

SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
HELD_OUT = 0.1

_TRAIN = "train"
# What the folder of a split may be called; where there are several, the first is the split "validation".
_VALIDATION = ("validation", "val", "test")


class FolderDataset(Dataset):
    """One split of a folder of images; labels count the sorted names of the class folders.

    Images are files of a suffix in `SUFFIXES`, at any depth of their class folder. Files and folders whose names begin with
    a dot are left out. The folder is listed once, and copies of the data set share that list.

    Attributes:
      name: "folder".
      split: "train" or "validation"; also "all" where the class folders lie in the folder itself, and "test" where it has one.
      data_dir: the folder.
    """

    name = "folder"

    def __init__(self, split: str, data_dir: str | os.PathLike[str] | None) -> None:
        if data_dir is None:
            raise UserError("Expected the folder of images, got None; set dataset.data_dir.")
        root = epath.Path(data_dir)
        self.split, self.data_dir = split, os.fspath(root)
        folders = _folders(root)
        is_pair = _TRAIN in folders and any(name in folders for name in _VALIDATION)
        images = (_list_pair if is_pair else _list_single)(root, folders, split)
        paths = list(itertools.chain.from_iterable(images.values()))
        if not paths:
            raise UserError(f"Expected a class of two or more images in {root}, to hold one out, found none; add images.")
        self._class_names = tuple(images)
        self._labels = np.repeat(np.arange(len(images)), [len(of_class) for of_class in images.values()])
        self._paths = "".join(paths)  # one string, as a million would make a heavy copy for each worker
        self._ends = np.fromiter(itertools.accumulate(map(len, paths)), np.int64, len(paths))

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns {"image": bytes, "label": int}; see `Dataset`."""
        path = self.where(index)
        try:
            data = epath.Path(path).read_bytes()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UserError(f"Expected the image {path} to be readable, got: {reason}; put it back or start anew.") from error
        return {"image": data, "label": int(self._labels[index])}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the class folders, sorted."""
        return self._class_names

    def where(self, index: int) -> str:
        """Returns the path of an image."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.data_dir} {self.split} has images 0 to {len(self) - 1}, not {index}")
        start = self._ends[index - 1] if index else 0
        return f"{self.data_dir}/{self._paths[start : self._ends[index]]}"


def _list_single(root: epath.Path, classes: Sequence[str], split: str) -> dict[str, list[str]]:
    """Returns the images of each class, of a folder of class folders."""
    _check_split(root, split, (_TRAIN, "validation", "all"))
    _check_classes(root, classes)
    images = {name: _images(root, name) for name in classes}
    if split == "all":
        return images
    held_out = set().union(*(_held_out(paths) for paths in images.values()))
    wanted = split == "validation"
    return {name: [path for path in paths if (path in held_out) == wanted] for name, paths in images.items()}


def _list_pair(root: epath.Path, folders: Sequence[str], split: str) -> dict[str, list[str]]:
    """Returns the images of each class, of a folder with the folders of a training and a validation set."""
    validation = next(name for name in _VALIDATION if name in folders)
    known = {_TRAIN: _TRAIN, "validation": validation} | ({"test": "test"} if "test" in folders else {})
    _check_split(root, split, tuple(known))
    classes, other = _folders(root / _TRAIN), root / known["validation" if split == _TRAIN else split]
    _check_classes(root / _TRAIN, classes)
    different = sorted(set(classes) ^ set(_folders(other)))
    if different:
        raise UserError(
            f"Expected the same class folders in {root / _TRAIN} and {other}, only one of them has {quoted(different)}; make "
            "them alike."
        )
    return {name: _images(root, f"{known[split]}/{name}") for name in classes}


def _check_classes(folder: epath.Path, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise UserError(
            f"Expected a folder for each of two or more classes in {folder}, found {quoted(classes)}; give a folder that holds "
            "class folders, or the folders 'train' and 'validation' with class folders."
        )


def _check_split(root: epath.Path, split: str, known: tuple[str, ...]) -> None:
    if split not in known:
        raise UserError(f"Expected one of the splits {quoted(known)} of the folder {root}, got {split!r}; correct the split.")


def _folders(root: epath.Path) -> list[str]:
    """The sorted names of the sub-folders."""
    if not root.is_dir():
        raise UserError(f"Expected a folder of images at {root}, found none; correct dataset.data_dir.")
    return sorted(path.name for path in root.iterdir() if not path.name.startswith(".") and path.is_dir())


def _images(root: epath.Path, folder: str) -> list[str]:
    """The sorted paths of the images below a class folder, relative to the root and with slashes."""
    found = []
    for parent, _, names in (root / folder).walk():
        parts = parent.relative_to(root / folder).parts
        if not any(part.startswith(".") for part in parts):
            below = "/".join((folder, *parts))
            found += [f"{below}/{name}" for name in names if not name.startswith(".") and name.lower().endswith(SUFFIXES)]
    if not found:
        raise UserError(
            f"Expected images ({', '.join(SUFFIXES)}) in the class folder {root / folder}, found none; add some or remove "
            "the folder."
        )
    return sorted(found)


def _held_out(paths: Sequence[str]) -> set[str]:
    """The images of a class that are held out: those of a low hash of their path, but never none or all of several."""
    if len(paths) < 2:
        return set()
    ranked = sorted((_hash(path), path) for path in paths)
    count = sum(value < HELD_OUT for value, _ in ranked)
    return {path for _, path in ranked[: min(max(count, 1), len(ranked) - 1)]}


def _hash(path: str) -> float:
    """A number from 0 to 1 that looks random."""
    return int.from_bytes(hashlib.blake2b(path.encode(errors="surrogateescape"), digest_size=8).digest()) / 2**64
