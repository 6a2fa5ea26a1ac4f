"""What the command lines that read weights have in common."""

import os

from paca_jax.checkpoints.loading import Loaded
from paca_jax.data.sources.files import read_lines
from paca_jax.errors import one_line
from paca_jax.paths import user_path


def read_class_names(file: str | None) -> list[str] | None:
    """Returns the names of classes in a text file, one on each line; None without a file.

    Raises:
        UserError: if the file cannot be read.
    """
    return read_lines(os.fspath(user_path(file))) if file else None


def print_departures(loaded: Loaded) -> None:
    """Prints what there is to say about a model that is to be written: whether its classes have names, and how it was read."""
    if loaded.class_names is None and loaded.model.config.num_classes:
        print("The source has no names of classes to keep; --class-names FILE gives some.")
    for sentence in loaded.departures:
        print(one_line(sentence))
