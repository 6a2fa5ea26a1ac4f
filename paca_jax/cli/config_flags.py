"""Reads `--config=FILE[:VARIANT]` and `--config.key=value`, with errors that name the nearest keys.

`--config.key=None` and `--config.key=` unset a key that is None by default. Of several flags for one key the last one
counts, as for all other flags.
"""

import argparse
import os
import re
import runpy
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from paca_jax.errors import UserError, nearest, shorten
from paca_jax.files import check_regular
from paca_jax.paths import is_remote, user_path

_FLAG = re.compile(r"--?(no)?config\.([^=]*)(=.*)?", re.DOTALL)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, ConfigDict]:
    """Parses a command line with `--config` and its overrides.

    Args:
        parser: the parser of all other flags; `--config` is added to it.
        argv: the command line; by default that of the process.

    Returns:
        The values of the other flags, and the locked config, whose values are checked.

    Raises:
        UserError: if the config file is missing or invalid, a key does not exist, a value does not fit its key, or an argument
            is not a flag of the command.
    """
    from paca_jax.train.config import check_values, default_config, flat_items  # which need JAX, unlike the help of a parser

    parser.add_argument(
        "--config",
        metavar="FILE[:VARIANT]",
        required=True,
        help="a file of configs/, and :VARIANT if the file has variants",
    )
    values, rest = parser.parse_known_args(argv)
    if not values.config.strip():
        raise UserError("Expected --config=FILE[:VARIANT], got no file. Name one of configs/, or one of your own.")
    config = read_config(values.config)
    overrides = _by_key(rest, [key for key, _, _ in flat_items(config)])
    optional = {key for key, value, _ in flat_items(default_config()) if value is None}
    unset = [key for key, given in overrides.items() if key in optional and _value(given) in ("", "None")]
    line = [parser.prog, *(part for key, given in overrides.items() if key not in unset for part in given)]
    config_only = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=config_only, sys_argv=line)
        stray = config_only(line)[1:]
    except (flags.Error, TypeError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise UserError(f"A value does not fit its key: {_one_line(error)}") from error
    if stray:
        raise _stray(stray[0])
    config.update_from_flattened_dict(dict.fromkeys(unset))
    check_values(config)
    return values, config


def read_config(file: str) -> ConfigDict:
    """Returns the locked config of "FILE" or "FILE:VARIANT".

    Raises:
        UserError: if there is no such file or variant, the file fails in any way, or its config does not have exactly the keys
            of the default one.
    """
    from paca_jax.train.config import check_keys

    typed = user_path(file)
    path, _, variant = os.fspath(typed).partition(":")
    if is_remote(typed):
        raise UserError(f"Expected a config file on this machine, got {file}. Copy it here.")
    if not Path(path).exists():
        raise UserError(f"There is no config file {path}; those of the library are in configs/.")
    check_regular(path)
    try:
        get_config = runpy.run_path(path).get("get_config")
        if get_config is None:
            raise UserError(f"Expected a function get_config in {file}, got none. Define it, as the files in configs/ do.")
        config = get_config(variant) if variant else get_config()
        if not isinstance(config, ConfigDict):
            found = type(config).__name__
            raise UserError(f"Expected get_config in {file} to return a ConfigDict, got {found}. Start from default_config().")
        check_keys(config, file)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # it runs the user's code, which may raise anything
        raise UserError(f"Expected a config from {file}, got {_failure(error, path)}. Correct the file.") from error
    return config.lock()


def _by_key(arguments: Sequence[str], keys: Collection[str]) -> dict[str, list[str]]:
    """Returns the last flag of each key, which may have its value in an argument of its own."""
    found: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest:
        flag = _FLAG.fullmatch(argument := rest.pop(0))
        if flag is None:
            raise _stray(argument)
        _, key, value = flag.groups()
        if key not in keys:
            raise UserError(f"The config has no key {key!r}; {nearest(key, list(keys))}.")
        separate = value is None and rest and not rest[0].startswith(("--", "-config."))
        found[key] = [argument, rest.pop(0)] if separate else [argument]
    return found


def _value(given: Sequence[str]) -> str | None:
    """Returns the value of a flag, which may be an argument of its own; None if it has none."""
    if len(given) > 1:
        return given[1]
    _, equals, value = given[0].partition("=")
    return value if equals else None


def _stray(argument: str) -> UserError:
    if argument.startswith("-"):
        return UserError(f"There is no flag {argument.partition('=')[0]}. See --help.")
    return UserError(f"Expected only flags (--name=value), got {argument!r}. See --help.")


def _failure(error: BaseException, path: str) -> str:
    """Returns what a config file raised and, if it is known, in which of its lines."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if not lines and isinstance(error, SyntaxError) and error.filename == path:
        lines = [error.lineno]
    where = f" in line {lines[-1]}" if lines and lines[-1] else ""
    return f"{type(error).__name__}{where}: {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    text = text.partition(" Other fields present")[0]  # and a whole page of ml_collections about them
    return shorten(" ".join(text.split()).rstrip("."))
