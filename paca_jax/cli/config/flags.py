"""Reads `--config=FILE[:VARIANT]` and `--config.key=value`, with errors that name the nearest keys.

`--config.key=None` and `--config.key=` unset a key that is None by default. Of several flags for one key the last one
counts, as for all other flags.
"""

import argparse
import inspect
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from paca_jax.command_line import Parser
from paca_jax.errors import UserError, nearest, shorten
from paca_jax.fields import describe
from paca_jax.files import check_regular
from paca_jax.paths import is_remote, shipped, user_path

_FLAG = re.compile(r"--?(no)?config\.([^=]*)(=.*)?", re.DOTALL)


# The arguments that set each key.
Overrides = dict[str, list[str]]


def parse(parser: Parser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, Overrides]:
    """Parses a command line with `--config` and its overrides.

    Args:
        parser: the parser of all other flags; `--config` is added to it.
        argv: the command line; by default that of the process.

    Returns:
        The values of all flags but the overrides, and the overrides.

    Raises:
        UserError: if a key does not exist, a flag has no value, or an argument is not a flag of the command.
    """
    parser.add_argument(
        "--config",
        metavar="FILE[:VARIANT]",
        help="a config file, or the name of one of the library, such as paca_base; :VARIANT if it has some",
    )
    values, rest = parser.parse_known_args(argv)
    return values, _by_key(rest, parser)


def make_config(file: str | None, overrides: Overrides) -> ConfigDict:
    """Returns the locked config of "FILE" or "FILE:VARIANT" with the overrides.

    Raises:
        UserError: if the file is None, missing or invalid, or a value does not fit its key.
    """
    if file is None or not file.strip():
        raise UserError("Expected --config=FILE[:VARIANT], got no file. Name one of the library, such as photos, or your own.")
    return override(read_config(file), overrides)


def override(config: ConfigDict, overrides: Overrides) -> ConfigDict:
    """Changes the keys of a config that the overrides set, and returns it, with all values checked.

    Raises:
        UserError: if a value does not fit its key.
    """
    from paca_jax.train.config import check_values, default_config, flat_items

    optional = {key for key, value, _ in flat_items(default_config()) if value is None}
    unset = [key for key, given in overrides.items() if key in optional and _value(given) in ("", "None")]
    line = ["paca", *(part for key, given in overrides.items() if key not in unset for part in given)]
    config_only = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=config_only, sys_argv=line)
        stray = config_only(line)[1:]
    except (flags.Error, TypeError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise UserError(f"A value does not fit its key: {_one_line(error)}") from error
    if stray:
        raise UserError(f"Expected only flags (--name=value), got {stray[0]!r}. See --help.")
    config.update_from_flattened_dict(dict.fromkeys(unset))
    check_values(config)
    return config


def read_config(file: str) -> ConfigDict:
    """Returns the locked config of "FILE" or "FILE:VARIANT".

    FILE is a path, or the name of a config that comes with the library. Config files import each other from `configs`.

    Raises:
        UserError: if there is no such file or variant, the file fails in any way, or its config does not have exactly the keys
            of the default one.
    """
    typed = user_path(file)
    path, _, variant = os.fspath(typed).partition(":")
    named = shipped("configs") / f"{path}.py"
    if path == os.path.basename(path) and named.is_file() and not Path(path).is_file():
        path = os.fspath(named)
    if is_remote(typed):
        raise UserError(f"Expected a config file on this machine, got {file}. Copy it here.")
    if not Path(path).exists():
        raise UserError(f"There is no config file {path}; {_files_near(path)}.")
    check_regular(path)
    try:
        with _configs_importable(path):
            config = _config_of(path, variant, file)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # it runs the user's code, which may raise anything
        raise UserError(f"Expected a config from {file}, got {_failure(error, path)}. Correct the file.") from error
    return config.lock()


def _config_of(path: str, variant: str, file: str) -> ConfigDict:
    """Returns the config of a variant of the file at a path, which messages name as a user typed it."""
    from paca_jax.train.config import check_keys

    content = runpy.run_path(path)
    get_config = content.get("get_config")
    if get_config is None or not callable(get_config):
        found = "none" if get_config is None else shorten(repr(get_config))
        raise UserError(f"Expected a function get_config in {file}, got {found}. Define it, as the files in configs/ do.")
    variants = [str(name) for name in content.get("VARIANTS", ()) if name]
    _check_variant(get_config, path, variant, variants)
    config = get_config(variant) if variant else get_config()
    if not isinstance(config, ConfigDict):
        found = type(config).__name__
        raise UserError(f"Expected get_config in {file} to return a ConfigDict, got {found}. Start from default_config().")
    check_keys(config, file)
    _check_model(config, path, variant, variants)
    return config


@contextmanager
def _configs_importable(path: str) -> Iterator[None]:
    """A context in which `configs` is a package of the files beside a config file, and of those that come with the library."""

    def of_package() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] == "configs"]

    before = {name: sys.modules.pop(name) for name in of_package()}
    package = sys.modules["configs"] = ModuleType("configs")
    package.__path__ = [os.path.dirname(os.path.abspath(path)), os.fspath(shipped("configs"))]
    try:
        yield
    finally:
        for name in of_package():
            del sys.modules[name]
        sys.modules.update(before)


def _files_near(path: str) -> str:
    """Returns a clause that names the config files in the folder of a path."""
    folder = Path(path).parent
    files = sorted(map(str, folder.glob("*.py"))) if folder.is_dir() else []
    return (
        nearest(path, files, f"the folder {folder}")
        if files
        else nearest(Path(path).stem, sorted(file.stem for file in shipped("configs").glob("*.py")))
    )


def _check_variant(get_config: Callable[..., Any], path: str, variant: str, variants: Sequence[str]) -> None:
    """Checks that a config file has variants if one is asked for, and needs none if not."""
    parameters = list(inspect.signature(get_config).parameters.values())
    if variant and not parameters:
        raise UserError(f"Expected no variant after {path}, which has none, got {variant!r}. Leave :{variant} out.")
    if not variant and any(each.default is each.empty and each.kind == each.POSITIONAL_OR_KEYWORD for each in parameters):
        known = f"; {nearest('', variants)}" if variants else ""
        raise UserError(f"Expected a variant, --config={path}:VARIANT, got none{known}. Add one.")


def _check_model(config: ConfigDict, path: str, variant: str, variants: Sequence[str]) -> None:
    """Refuses a variant that the file does not list and that makes the name of no model."""
    from paca_jax.models import list_models

    if variant and variant not in variants and config.model.name not in list_models():
        known = nearest(variant, variants) if variants else f"it gives the model {config.model.name!r}, which does not exist"
        raise UserError(f"There is no variant {variant!r} of {path}; {known}.")


def _by_key(arguments: Sequence[str], parser: Parser) -> Overrides:
    """Returns the last flag of each key, which may have its value in an argument of its own."""
    from paca_jax.train.config import VALUES, default_config, flat_items  # which need JAX, unlike the help of a parser

    kinds = {key: kind for key, _, kind in flat_items(default_config())}
    found: Overrides = {}
    rest = list(arguments)
    while rest:
        flag = _FLAG.fullmatch(argument := rest.pop(0))
        if flag is None:
            raise UserError(parser.explain_stray(argument, [f"--config.{key}" for key in kinds]))
        _, key, value = flag.groups()
        if key not in kinds:
            raise UserError(f"The config has no key {key!r}; {nearest(key, list(kinds), 'paca train --help-config')}.")
        separate = value is None and rest and not rest[0].startswith(("--", "-config."))
        found[key] = [argument, rest.pop(0)] if separate else [argument]
        if value is None and not separate and kinds[key] is not bool:
            raise UserError(
                f"Expected --config.{key}=VALUE, with {describe(VALUES[key])}, got {argument} without a value. Give one."
            )
    return found


def _value(given: Sequence[str]) -> str | None:
    """Returns the value of a flag, which may be an argument of its own; None if it has none."""
    if len(given) > 1:
        return given[1]
    _, equals, value = given[0].partition("=")
    return value if equals else None


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
