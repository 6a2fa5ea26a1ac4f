"""Paths as users type them, and of what comes with the library."""

import os
from pathlib import Path

from etils import epath

from paca_jax.errors import UserError


def user_path(typed: str | os.PathLike[str]) -> epath.Path:
    """Returns the path that a user typed, with `~` expanded.

    Args:
        typed: a path on this machine, or on a bucket if it begins with `gs://`.

    Raises:
        UserError: it is empty, or a URL of another kind.
    """
    text = os.fspath(typed) if isinstance(typed, (str, os.PathLike)) else typed
    if not isinstance(text, str):
        raise UserError(f"Expected a path, got {typed!r}. Name a file or a folder.")
    if "://" in text and not is_remote(text):
        raise UserError(f"Expected a path on this machine or one that begins with gs://, got {text!r}. Copy the files here.")
    if not text.strip() or "\0" in text:
        raise UserError(f"Expected a path, got {text!r}. Name a file or a folder.")
    return epath.Path(text).expanduser()


def shipped(name: str) -> Path:
    """Returns a folder that comes with the library ("configs"): beside the package or, where that is installed, inside it."""
    package = Path(__file__).parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is on a bucket."""
    return os.fspath(path).startswith("gs://")
