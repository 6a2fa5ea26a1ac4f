"""`paca COMMAND ...`, and `python -m paca_jax COMMAND ...`: all command lines of the library behind one name."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from paca_jax.command_line import Parser, command_line
from paca_jax.version import __version__


class Command(NamedTuple):
    """A command of `paca`.

    Attributes:
        module: the module whose `main(argv)` runs the command.
        help: one line about the command.
        first: arguments that go before those of the user.
    """

    module: str
    help: str
    first: tuple[str, ...] = ()


# The modules are imported only when chosen, so that `paca --help` answers at once.
COMMANDS = {
    "train": Command("paca_jax.cli.train", "train the model of a config"),
    "evaluate": Command("paca_jax.cli.train", "evaluate a run, or given weights", ("--mode=eval",)),
    "predict": Command("paca_jax.cli.pictures.predict", "find classes, segments or objects in pictures"),
    "explain": Command("paca_jax.cli.pictures.explain", "measure what clusters do for the answers of a model"),
    "explore": Command("paca_jax.cli.pictures.explore", "write a page to explore what clusters do with pictures"),
    "serve": Command("paca_jax.cli.pictures.serve", "answer uploaded pictures over HTTP"),
    "convert": Command("paca_jax.cli.convert", "convert weights to and from PyTorch"),
    "export": Command("paca_jax.cli.export", "write a model as a program that runs without this library"),
    "push": Command("paca_jax.cli.push", "upload a model to the Hugging Face Hub"),
    "prepare": Command("paca_jax.data.prepare", "download and prepare a TFDS data set"),
    "convert-records": Command("paca_jax.data.convert_records", "convert a TFDS data set from TFRecord to ArrayRecord"),
    "plan": Command("paca_jax.cli.plan", "estimate memory and time of a training step on a TPU, without one"),
}


def main(argv: Sequence[str] | None = None) -> int | None:
    """Runs the command that the first argument names, and returns its exit status."""
    with command_line():
        options = _parser().parse_args(argv)
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # as `python -m` does: config files import the user's modules
        command = COMMANDS[options.command]
        module = importlib.import_module(command.module)
    return module.main([*command.first, *options.arguments])


def _parser() -> Parser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    parser = Parser(
        "paca",
        "PaCa-ViT, patch-to-cluster attention, in JAX and Flax.",
        usage="paca COMMAND ...",
        epilog="\n".join(["commands:", *lines, "", "paca COMMAND --help explains a command."]),
    )
    parser.add_argument("--version", action="version", version=f"paca-jax {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser
