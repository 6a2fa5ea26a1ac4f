"""Folders of image files: listing them, keeping the list small, and reading a file."""

import itertools
import os
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from paca_jax.data.sources.dataset import quoted
from paca_jax.errors import UserError

SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

TRAIN = "train"
# Names of the folder of the split "validation"; if there are several, the first counts.
_VALIDATION = ("validation", "val", "test")


class Paths:
    """The paths of a folder's files, pickled as one string: a list of a million would be slow to copy to each worker."""

    def __init__(self, root: str, paths: Sequence[str]) -> None:
        """Keeps `paths`, which are relative to the folder `root`."""
        self._root = root
        self._joined = "".join(paths)
        self._ends = np.fromiter(itertools.accumulate(map(len, paths)), np.int64, len(paths))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        """Returns a full path."""
        return f"{self._root}/{self.relative(index)}"

    def relative(self, index: int) -> str:
        """Returns a path relative to the folder."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self._root} has images 0 to {len(self) - 1}, not {index}")
        start = self._ends[index - 1] if index else 0
        return self._joined[start : self._ends[index]]


def checked_root(data_dir: str | os.PathLike[str] | None) -> epath.Path:
    """Returns the folder that the user named.

    Raises:
        UserError: it is None.
    """
    if data_dir is None:
        raise UserError("Expected the folder of images, got None. Set dataset.data_dir.")
    return epath.Path(data_dir)


def subfolders(folder: epath.Path) -> list[str]:
    """Returns the sorted names of the subfolders that do not begin with a dot.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"Expected a folder of images at {folder}, found none. Correct dataset.data_dir.")
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def split_folders(folders: Sequence[str], train: Sequence[str] = (TRAIN,)) -> dict[str, str]:
    """Returns the folder of each split that some folders hold.

    Args:
        folders: names of folders.
        train: the possible names of the folder of the split "train".
    """
    wanted = {TRAIN: train, "validation": _VALIDATION, "test": ("test",)}
    found = {split: next((name for name in names if name in folders), None) for split, names in wanted.items()}
    return {split: name for split, name in found.items() if name is not None}


def check_split(root: epath.Path, split: str, known: Mapping[str, str] | Sequence[str]) -> None:
    """Checks that a folder has a split.

    Raises:
        UserError: `split` is not among the known ones.
    """
    if split not in known:
        raise UserError(f"Expected one of the splits {quoted(known)} of the folder {root}, got {split!r}. Correct the split.")


def list_images(folder: epath.Path) -> list[str]:
    """Returns the sorted paths of the images at any depth of a folder, relative to it and with slashes.

    Images are files with a suffix in `SUFFIXES`. Files and folders whose names begin with a dot are left out.
    """
    found = []
    for parent, _, names in folder.walk():
        parts = parent.relative_to(folder).parts
        if not any(part.startswith(".") for part in parts):
            visible = (name for name in names if not name.startswith(".") and name.lower().endswith(SUFFIXES))
            found += ["/".join((*parts, name)) for name in visible]
    return sorted(found)


def read_file(path: str) -> bytes:
    """Returns the bytes of a file of a data set.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return epath.Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"Expected the file {path} to be readable, got: {reason}. Restore it or start again.") from error
