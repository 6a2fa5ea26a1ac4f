"""Folders of image files: listing them, keeping the list small, and reading lines of text."""

import codecs
import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from etils import epath

from paca_jax.data.sources.dataset import quoted
from paca_jax.errors import UserError, one_line
from paca_jax.files import read_file
from paca_jax.paths import user_path

logger = logging.getLogger(__name__)

SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

TRAIN = "train"
# Names of the folder of the split "validation"; if there are several, the first counts.
_VALIDATION = ("validation", "val", "test")
# How a text file begins that is not plain UTF-8; UTF-32 comes first, since its mark begins like that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


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
        UserError: it is None, empty, or a URL of another kind than `gs://`.
    """
    if data_dir is None:
        raise UserError("Expected the folder of images, got None. Set dataset.data_dir.")
    return user_path(data_dir)


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


class LeftOut(Counter[str]):
    """The number of files that belong to no example, by ending."""

    def add(self, names: Iterable[str]) -> None:
        """Counts files."""
        self.update(one_line(PurePosixPath(name).suffix.lower()) or "without an ending" for name in names)

    def __str__(self) -> str:
        """Returns "80 .heic, 1 .txt", or "none"."""
        return ", ".join(f"{count} {ending}" for ending, count in self.most_common()) or "none"

    def log(self, folder: epath.Path) -> None:
        """Logs what was left out of a folder, if anything was."""
        if self:
            logger.warning("Files left out of %s: %s. Convert those that are pictures to JPEG or PNG.", folder, self)


def list_files(folder: epath.Path, left_out: LeftOut, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Returns the sorted paths of the files at any depth of a folder, relative to it and with slashes.

    Files and folders whose names begin with a dot do not exist for it.

    Args:
        folder: the folder.
        left_out: to which it adds the files with other endings.
        suffixes: the endings of the wanted files, in lower case.
    """
    found: list[str] = []
    others: list[str] = []
    for parent, _, names in folder.walk():
        parts = parent.relative_to(folder).parts
        if not any(part.startswith(".") for part in parts):
            for name in names:
                if not name.startswith("."):
                    (found if name.lower().endswith(suffixes) else others).append("/".join((*parts, name)))
    left_out.add(others)
    return sorted(found)


def loose_files(folder: epath.Path) -> list[str]:
    """Returns the names of the files that are in a folder itself and do not begin with a dot."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir()]


def log_beside(root: epath.Path, folders: Sequence[str], splits: Mapping[str, str]) -> None:
    """Logs the folders, and the files, that are beside the folders of the splits and so belong to none."""
    unused = sorted(set(folders).difference(splits.values()))
    if unused:
        logger.warning("Folders of %s that are no split: %s.", root, quoted(unused))
    loose = LeftOut()
    loose.add(loose_files(root))
    loose.log(root)


def read_lines(path: str) -> list[str]:
    """Returns the lines of a text file without white space around them, and without empty lines at the end.

    The text is UTF-8, or UTF-16 or UTF-32 with a byte-order mark.

    Raises:
        UserError: it cannot be read, or is in another encoding.
    """
    content = read_file(path)
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"Expected text in UTF-8 in {path}, got bytes of another encoding ({error}). Save it as UTF-8."
        ) from error
    if "\0" in text:
        raise UserError(f"Expected text in UTF-8 in {path}, got zero bytes, as of UTF-16 without its mark. Save it as UTF-8.")
    return [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")]
