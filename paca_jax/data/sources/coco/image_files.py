"""Finding the images that a COCO file lists, inside the folder of the data set."""

import os
import posixpath
from collections.abc import Iterable, Sequence

from etils import epath

from paca_jax.paths import is_remote


class ImageFiles:
    """The files of a data set's folder, listed one folder at a time: asking for each file would be slow on remote disks.

    All paths that it takes and returns are relative to the folder and have slashes.
    """

    def __init__(self, root: epath.Path, image_folders: Iterable[str]) -> None:
        """Lists nothing yet.

        Args:
            root: the folder of the data set.
            image_folders: paths of folders that may be links out of the root: their names do not come from the annotations.
        """
        self._root = os.fspath(root)
        self._is_remote = is_remote(root)
        self._listings: dict[str, dict[str, bool]] = {}
        self._real_folders: dict[str, str] = {}
        self._real_root = self._real(self._root)
        self._allowed = {self._real(self._root), *(self._real(f"{self._root}/{folder}") for folder in image_folders)}

    def folder_of(self, names: Iterable[str], folders: Sequence[str]) -> str | None:
        """Returns the first folder that has the first of the named images that any of them has; None if they have none."""
        for name in names:
            for folder in folders:
                path = self.find(name, folder)
                if path is not None and self.has(path):
                    return folder
        return None

    def find(self, name: str, folder: str) -> str | None:
        """Returns the path of an image, which need not exist; None if it is outside the root.

        Args:
            name: the name in the annotations: a path relative to `folder`, or an absolute one. Backslashes are slashes, unless
                a file has them in its name.
            folder: the folder of the images.
        """
        path = self._path(name, folder)
        if "\\" in name and (path is None or not self.has(path)):
            path = self._path(name.replace("\\", "/"), folder)
        return path if path is not None and self._is_inside(path) else None

    def has(self, path: str) -> bool:
        """Returns whether there is such a file."""
        folder, name = posixpath.split(path)
        if self._listing(folder).get(name) is False:
            return True
        # A link may lead nowhere; and a disk may find more than it lists: names that differ in case, or in the form of accents.
        return not self._is_remote and os.path.isfile(f"{self._root}/{path}")

    def _path(self, name: str, folder: str) -> str | None:
        """Returns the path that a name stands for; None if it leads out of the root before any link is followed."""
        if name.startswith(f"{self._root}/"):
            path = posixpath.normpath(name[len(self._root) + 1 :])
        elif "://" in name or (self._is_remote and name.startswith("/")):
            return None
        elif name.startswith("/"):
            parent, last = posixpath.split(posixpath.normpath(name))
            path = posixpath.relpath(posixpath.join(self._real(parent), last), self._real_root)
        else:
            path = posixpath.normpath(posixpath.join(folder, name))
        return None if path == ".." or path.startswith("../") else path

    def _is_inside(self, path: str) -> bool:
        """Returns whether a path stays inside, once all links are followed."""
        if self._is_remote:
            return True
        folder, name = posixpath.split(path)
        parent = self._real(f"{self._root}/{folder}")
        is_plain = self._listing(folder).get(name) is False
        real = parent if is_plain else os.path.realpath(f"{self._root}/{path}")
        return any(real == allowed or real.startswith(f"{allowed.rstrip('/')}/") for allowed in self._allowed)

    def _real(self, folder: str) -> str:
        """Returns the path of a folder without links."""
        if self._is_remote:
            return folder
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        return self._real_folders[folder]

    def _listing(self, folder: str) -> dict[str, bool]:
        """Returns the names of the files in a folder, each with whether it is a link; none if there is no such folder."""
        if folder not in self._listings:
            path = f"{self._root}/{folder}"
            if self._is_remote:
                remote = epath.Path(path)
                found = {file.name: False for file in remote.iterdir()} if remote.is_dir() else {}
            elif os.path.isdir(path):
                with os.scandir(path) as entries:
                    found = {entry.name: entry.is_symlink() for entry in entries if not entry.is_dir()}
            else:
                found = {}
            self._listings[folder] = found
        return self._listings[folder]
