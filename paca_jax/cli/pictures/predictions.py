"""The folder of predictions: which files in it are its own, and `predictions.json`, which lists them."""

import hashlib
import itertools
import json
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from etils import epath

from paca_jax.errors import UserError
from paca_jax.files import read_file, read_json, write_file

PREDICTIONS_FILE = "predictions.json"
# The key, besides the pictures, of the list of files: the path of no picture ends in a slash.
FILES = "files/"

Entries = list[dict[str, Any]]


class Predictions:
    """The predictions that a command writes to a folder. Only files that an earlier command wrote there are replaced.

    `predictions.json` is {picture: its entries}, and under "files/" the list of the images in the folder, each with its `name`
    and `sha256`.
    """

    def __init__(self, folder: epath.Path, pictures: Sequence[epath.Path], kinds: Sequence[str], overwrite: bool) -> None:
        """Checks the folder, and writes nothing.

        Args:
            folder: the folder, which need not exist.
            pictures: the pictures to predict.
            kinds: the kinds of images that each prediction has.
            overwrite: whether to replace files of others too.

        Raises:
            UserError: if an image would replace one of the pictures, or a file that is not listed, or the entries of other
                pictures would be lost.
        """
        self._folder, self._entries = folder, dict[str, Entries]()
        self._names = _output_names(pictures)
        outputs = {folder / f"{name}.{kind}.png": path for path, name in self._names.items() for kind in kinds}
        _check_no_input(outputs, pictures)
        self._earlier, listed = _read(folder / PREDICTIONS_FILE, overwrite)
        if not overwrite:
            _check_same_pictures(folder, self._earlier, [str(path) for path in pictures])
        self._files = {name: checksum for name, checksum in listed.items() if (folder / name).exists()}
        others = [path for path in outputs if path.exists() and _checksum(path) != self._files.get(path.name)]
        if others and not overwrite:
            raise UserError(
                f"Expected no other files where predictions go, got {others[0]} ({len(others)} in all), which "
                f"{PREDICTIONS_FILE} there does not list as it is now. Choose another --out, or replace them with --overwrite."
            )

    def add(self, picture: epath.Path, entries: Entries, images: Mapping[str, bytes]) -> None:
        """Writes the images of a picture, and keeps its entries."""
        for kind, content in images.items():
            name = f"{self._names[picture]}.{kind}.png"
            write_file(self._folder / name, content)
            self._files[name] = hashlib.sha256(content).hexdigest()
        self._entries[str(picture)] = entries

    def write(self, complete: bool) -> None:
        """Writes `predictions.json`: if the command failed, with the earlier entries of the pictures that it did not reach."""
        if not (complete or self._entries):
            return
        files = [{"name": name, "sha256": checksum} for name, checksum in self._files.items()]
        content = {**({} if complete else self._earlier), **self._entries, FILES: files}
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # A path that is no text has lone surrogates, which JSON can hold, but not UTF-8.
        write_file(self._folder / PREDICTIONS_FILE, text.encode(errors="backslashreplace"))


def _output_names(paths: Sequence[epath.Path]) -> dict[epath.Path, str]:
    """Returns a unique name for the files of each picture: its own, with a number if another picture has the same."""
    names, taken = {}, set()
    for path in dict.fromkeys(paths):
        numbered = (f"{path.stem}_{number}" for number in itertools.count(2))
        names[path] = next(name for name in itertools.chain([path.stem], numbered) if name not in taken)
        taken.add(names[path])
    return names


def _check_no_input(outputs: Mapping[epath.Path, epath.Path], pictures: Collection[epath.Path]) -> None:
    places = {os.path.realpath(picture) for picture in pictures}
    for output, picture in outputs.items():
        if os.path.realpath(output) in places:
            raise UserError(
                f"Expected outputs that do not replace an input picture, got {output} for {picture}. Choose another --out."
            )


def _check_same_pictures(folder: epath.Path, earlier: Mapping[str, Entries], pictures: Sequence[str]) -> None:
    lost = [picture for picture in earlier if picture not in pictures]
    if lost:
        these = f"{pictures[0]}{', ...' if len(pictures) > 1 else ''}"
        raise UserError(
            f"Expected {PREDICTIONS_FILE} in {folder} to have no pictures but these ({these}), got {lost[0]} ({len(lost)} in "
            "all), whose predictions would be lost. Choose another --out, or replace them with --overwrite."
        )


def _read(path: epath.Path, overwrite: bool) -> tuple[dict[str, Entries], dict[str, str]]:
    """Returns the entries in a `predictions.json`, and the checksums of the files that it lists by their names."""
    if not path.exists():
        return {}, {}
    try:
        found = read_json(path)
        if not all(isinstance(value, list) and all(isinstance(each, dict) for each in value) for value in found.values()):
            raise UserError(f"Expected predictions in {path}, got something else. Restore the file.")
    except UserError as error:
        if overwrite:
            return {}, {}
        raise UserError(f"{error} --overwrite replaces it; another --out leaves it alone.") from error
    files = [(each.get("name"), each.get("sha256")) for each in found.pop(FILES, [])]
    return found, {name: checksum for name, checksum in files if isinstance(name, str) and name == os.path.basename(name)}


def _checksum(path: epath.Path) -> str:
    return hashlib.sha256(read_file(path)).hexdigest()
