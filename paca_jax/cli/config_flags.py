"""Reads `--config=FILE[:VARIANT]` and `--config.key=value`, with errors that name the nearest keys.

`--config.key=None` and `--config.key=` unset a key that is None by default.
"""

import argparse
import os
import runpy
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from paca_jax.errors import UserError, nearest


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, ConfigDict]:
    """Parses a command line with `--config` and its overrides.

    Args:
        parser: the parser of all other flags; `--config` is added to it.
        argv: the command line; by default that of the process.

    Returns:
        The values of the other flags, and the locked config.

    Raises:
        UserError: if the config file is missing or invalid, a key does not exist, a value does not fit its key, or an argument
            is not a flag of the command.
    """
    from paca_jax.train.config import default_config  # which needs JAX, unlike the help of a parser

    parser.add_argument(
        "--config",
        metavar="FILE[:VARIANT]",
        type=os.path.expanduser,
        required=True,
        help="a file of configs/, and :VARIANT if the file has variants",
    )
    values, overrides = parser.parse_known_args(argv)
    keys = [key for key, _ in _items(read_config(values.config))]
    for argument in overrides:
        key = argument.lstrip("-").partition("=")[0].removeprefix("config.")
        if argument.startswith(("--config.", "-config.")) and key not in keys:
            raise UserError(f"The config has no key {key!r}; {nearest(key, keys)}.")

    optional = [key for key, value in _items(default_config()) if value is None]
    overrides, unset = _split_unset(overrides, optional)
    line = [parser.prog, f"--config={values.config}", *overrides]
    config_only = flags.FlagValues()
    config_flags.DEFINE_config_file("config", lock_config=True, flag_values=config_only, sys_argv=line)
    try:
        rest = config_only(line)
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"There is no flag --{error.flagname}. See --help.") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(f"A value does not fit its key: {_one_line(error)}") from error
    config_only.config.update_from_flattened_dict(dict.fromkeys(unset))
    if len(rest) > 1:
        raise UserError(f"Expected only flags (--name=value), got {' '.join(rest[1:])!r}. See --help.")
    return values, config_only.config


def read_config(file: str) -> ConfigDict:
    """Returns the config of "FILE" or "FILE:VARIANT".

    Raises:
        UserError: if there is no such file or variant, or the file sets a key that does not exist or a value of the wrong type.
    """
    path, _, variant = file.partition(":")
    if not Path(path).is_file():
        raise UserError(f"There is no config file {path}; those of the library are in configs/.")
    try:
        get_config = runpy.run_path(path)["get_config"]
        return get_config(variant) if variant else get_config()
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"The config {file} is not valid: {_one_line(error)}") from error


def _split_unset(overrides: Sequence[str], optional: Collection[str]) -> tuple[list[str], list[str]]:
    """Splits flags into those that set a value, and the keys that "None" or an empty text unsets."""
    rest: list[str] = []
    unset: list[str] = []
    flags_left = list(overrides)
    while flags_left:
        flag = [flags_left.pop(0)]
        if "=" not in flag[0] and flags_left and not flags_left[0].startswith("-"):
            flag.append(flags_left.pop(0))
        name, _, value = "=".join(flag).partition("=")
        key = name.lstrip("-").removeprefix("config.")
        if name.startswith("-") and key in optional and value in ("None", ""):
            unset.append(key)
        else:
            rest += flag
    return rest, unset


def _items(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted keys and their values."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _items(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _one_line(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())
