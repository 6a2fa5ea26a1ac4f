"""Reads `--config=FILE[:VARIANT]` and `--config.key=value`, with errors that name the nearest keys."""

import argparse
import runpy
from collections.abc import Iterator, Sequence
from pathlib import Path

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
    parser.add_argument(
        "--config", metavar="FILE[:VARIANT]", required=True, help="a file of configs/, and :VARIANT if the file has variants"
    )
    values, overrides = parser.parse_known_args(argv)
    keys = list(_keys(read_config(values.config)))
    for argument in overrides:
        key = argument.lstrip("-").partition("=")[0].removeprefix("config.")
        if argument.startswith(("--config.", "-config.")) and key not in keys:
            raise UserError(f"The config has no key {key!r}; {nearest(key, keys)}.")

    line = [parser.prog, f"--config={values.config}", *overrides]
    config_only = flags.FlagValues()
    config_flags.DEFINE_config_file("config", lock_config=True, flag_values=config_only, sys_argv=line)
    try:
        rest = config_only(line)
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"There is no flag --{error.flagname}. See --help.") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(f"A value does not fit its key: {_one_line(error)}") from error
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


def _keys(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())
