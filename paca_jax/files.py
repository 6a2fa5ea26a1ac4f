"""Files that a user names: read whole, if they are regular ones; written whole or not at all."""

import json
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Any

from etils import epath

from paca_jax.errors import UserError
from paca_jax.paths import is_remote, user_path

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
_JSON: dict[type, str] = {dict: "object", list: "array"}


def read_file(path: epath.PathLike) -> bytes:
    """Returns the bytes of a regular file, local or on a bucket; a pipe or a device is never opened.

    Raises:
        UserError: if it is missing, of another kind, or cannot be read.
    """
    try:
        if not is_remote(path):
            check_regular(path)
        return epath.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"Expected a file at {path}, got: {reason(error)}. Check the path.") from error


def check_regular(path: epath.PathLike) -> None:
    """Checks that there is a regular file at a path on this machine, without opening it.

    Raises:
        UserError: if it is missing or of another kind.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except OSError as error:
        raise UserError(f"Expected a file at {path}, got: {reason(error)}. Check the path.") from error
    if kind != stat.S_IFREG:
        raise UserError(f"Expected a file at {path}, got {_KINDS.get(kind, 'a device')}. Check the path.")


def read_json(path: epath.PathLike) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
        UserError: if it cannot be read, or holds something else.
    """
    return parse_json(read_file(path), os.fspath(path))


def parse_json(text: str | bytes, place: str, kind: type = dict) -> Any:
    """Returns the JSON value, a dict or a list, that is the text at a place, which messages name.

    Raises:
        UserError: if it is something else.
    """
    expected = f"a JSON {_JSON[kind]} in {place}"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"Expected {expected}, got something else ({error}). Restore the file.") from error
    if not isinstance(found, kind):
        raise UserError(f"Expected {expected}, got {type(found).__name__}. Restore the file.")
    return found


def write_file(path: epath.PathLike, data: bytes | str) -> None:
    """Writes a file, local or on a bucket, completely or not at all; text in UTF-8. Its folder is made if needed.

    A file that is replaced keeps its permissions, and a link to it stays one.

    Raises:
        UserError: if there is no regular file at the path, but something else, or it cannot be written; what was there before
            is unchanged.
    """
    content, place = data.encode() if isinstance(data, str) else data, epath.Path(path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if is_remote(place):
            place.write_bytes(content)  # a bucket shows an object once it is complete
        else:
            _replace(os.path.realpath(place), content)
    except OSError as error:
        raise UserError(f"Expected to write {path}, got: {reason(error)}. Nothing was changed; correct that.") from error


def check_new_folder(folder: str | os.PathLike[str]) -> epath.Path:
    """Returns the path of a folder that may be written.

    Raises:
        UserError: if it is on a bucket, is a file, is not empty, or cannot be read.
    """
    place = user_path(folder)
    if is_remote(place):
        raise UserError(f"Expected a folder on this machine, got {place}. Write it here and copy it.")
    try:
        taken = place.exists() and not (place.is_dir() and not any(place.iterdir()))
    except OSError as error:
        raise UserError(f"Expected a folder to write to, {place}, got: {reason(error)}. Choose another.") from error
    if taken:
        raise UserError(f"Expected a new or empty folder, got {place}, which is not. Choose another, or delete it.")
    return place


def reason(error: OSError) -> str:
    """Returns why the system refused, without the path."""
    return error.strerror or type(error).__name__


def _replace(path: str, content: bytes) -> None:
    replaces = os.path.exists(path)
    if replaces:
        check_regular(path)
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name[:200]}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replaces:
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
