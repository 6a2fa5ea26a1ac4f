"""Reading `--config=FILE[:VARIANT]` and `--config.key=value`, with errors that name the nearest keys."""

import logging
import runpy
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

from paca_jax.errors import UserError, nearest


def set_up_logging(process: int) -> None:
    """Sends what the library tells to the standard error stream; of several processes the first tells what all do."""
    prefix = f"[process {process}] " if process else ""
    logging.basicConfig(format=f"{prefix}%(message)s", level=logging.WARNING, force=True)
    logging.getLogger("paca_jax").setLevel(logging.WARNING if process else logging.INFO)
    absl_logging.set_verbosity(absl_logging.WARNING)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line and returns the program's name, as `absl.app.run` asks of its `flags_parser`.

    Raises:
        UserError: if the config file is missing, or sets or is given a key that does not exist or a value that does not fit, or
            something is no flag.
    """
    named = [argument.lstrip("-").partition("=") for argument in argv[1:] if argument.startswith("-")]
    files = [value for name, _, value in named if name == "config" and value]
    if files:
        known = list(_keys(read_config(files[-1])))
        for name, _, _ in named:
            key = name.removeprefix("config.")
            if key != name and key not in known:
                raise UserError(f"The config has no key {key!r}; {nearest(key, known)}.")
    try:
        rest = flags.FLAGS(list(argv))
    except (flags.IllegalFlagValueError, TypeError, ValueError) as error:
        raise UserError(f"A value does not fit its key: {_one_line(error)}") from error
    if len(rest) > 1:
        raise UserError(f"Everything is a --flag, but got {' '.join(rest[1:])!r}.")
    return rest


def read_config(file: str) -> ConfigDict:
    """Returns the config of "FILE" or "FILE:VARIANT".

    Raises:
        UserError: if there is no such file or variant, or the file sets a key that does not exist or a value of another type.
    """
    path, _, variant = file.partition(":")
    if not Path(path).is_file():
        raise UserError(f"There is no config file {path}; those of the library are in configs/.")
    try:
        get_config = runpy.run_path(path)["get_config"]
        return get_config(variant) if variant else get_config()
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"The config {file} is not valid: {_one_line(error)}") from error


def _keys(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())
