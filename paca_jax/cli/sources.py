"""What the command lines that read weights have in common."""

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

from paca_jax.cache import keep_compiled_programs
from paca_jax.checkpoints.loading import Loaded, read_model
from paca_jax.command_line import Parser, command_line
from paca_jax.convert.checkpoint import WEIGHTS
from paca_jax.data.sources.files import read_lines
from paca_jax.errors import one_line
from paca_jax.memory import keep_freed_memory
from paca_jax.paths import user_path


def run_command(parser: Parser, command: Callable[[argparse.Namespace], None], argv: Sequence[str] | None) -> None:
    """Runs a command that computes with a model; `argv` is by default that of the process."""
    with command_line():
        arguments = parser.parse_args(argv)
        keep_compiled_programs()
        keep_freed_memory()
        command(arguments)


def add_picture_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of a command that shows pictures to a model: the pictures, and where the model comes from."""
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="pictures: JPEG, PNG, ...")
    parser.add_argument("--checkpoint", metavar="PLACE", required=True, help="workdir, file of weights, or model's name")
    add_reading_options(parser)


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `read_source`."""
    parser.add_argument("--model", metavar="NAME", help="the model's name, if the source does not record it")
    parser.add_argument("--weights", choices=WEIGHTS, help="the weights or their average, if PLACE has both")
    parser.add_argument("--image-size", metavar="N", type=int, help="the side of images in pixels, or their short side")
    parser.add_argument("--class-names", metavar="FILE", help="a text file with the name of a class in each line")
    parser.add_argument("--allow-nonfinite", action="store_true", help="accept weights that are NaN or infinite")


def read_source(place: str, arguments: argparse.Namespace) -> Loaded:
    """Returns the model of a place as `add_reading_options` asks for it.

    Raises:
        UserError: if the weights or the names of classes cannot be read.
    """
    size: dict[str, Any] = {} if arguments.image_size is None else {"image_size": arguments.image_size}
    return read_model(
        place,
        arguments.model,
        weights=arguments.weights,
        class_names=read_class_names(arguments.class_names),
        allow_nonfinite=arguments.allow_nonfinite,
        **size,
    )


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
