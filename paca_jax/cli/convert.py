"""Converts weights from one form to another.

    paca convert SOURCE DESTINATION [--model NAME] [--allow-new GROUPS]

SOURCE is a workdir, a `.safetensors` or `.pth` file, or an official model's name (its published weights are downloaded).
DESTINATION is a `.safetensors` or `.pth` file, which the official code loads with `strict=True`, or a new folder for
`paca_jax.load` and `--config.init_from`.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from paca_jax.checkpoints.files import SUFFIXES, write_state_dict
from paca_jax.checkpoints.loading import Loaded, read_model
from paca_jax.convert import to_torch
from paca_jax.errors import UserError
from paca_jax.models.variables import GROUPS


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 0, or 2 after one line that says what is wrong."""
    arguments = _parser().parse_args(argv)
    try:
        _convert(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _convert(arguments: argparse.Namespace) -> None:
    destination = epath.Path(arguments.destination)
    _check_destination(destination)
    overrides: dict[str, Any] = {"num_classes": arguments.num_classes, "clusters": arguments.clusters}
    overrides = {key: value for key, value in overrides.items() if value is not None}
    loaded = read_model(arguments.source, arguments.model, allow_new=arguments.allow_new, **overrides)
    state = to_torch(loaded.variables, loaded.model)
    if destination.suffix in SUFFIXES:
        write_state_dict(destination, state, loaded.recipe)
    else:
        from paca_jax.checkpoints.workdir import write_variables  # Orbax takes seconds to import

        names = {} if loaded.class_names is None else {"class_names": list(loaded.class_names)}
        write_variables(destination, loaded.variables, {"model": loaded.recipe, **names})
    _report(destination, loaded, state)


def _check_destination(destination: epath.Path) -> None:
    if destination.exists():
        raise UserError(f"{destination} exists already. Choose another destination, or delete it.")
    if destination.suffix not in SUFFIXES and re.fullmatch(r"\.[A-Za-z]+", destination.suffix):
        raise UserError(
            f"Expected a destination that ends in {', '.join(SUFFIXES)}, or a new folder, got {str(destination)!r}."
        )


def _report(destination: epath.Path, loaded: Loaded, state: dict[str, np.ndarray]) -> None:
    numbers = sum(array.size for array in state.values())
    print(f"Wrote {destination}: {loaded.recipe['name']}, {len(state)} arrays, {numbers:,} numbers.")
    for sentence in loaded.departures:
        print(sentence)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paca convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE", help="workdir, .safetensors, .pth, or an official model's name")
    parser.add_argument("destination", metavar="DESTINATION", help=".safetensors, .pth, or a new folder")
    parser.add_argument("--model", metavar="NAME", help="the model's name, if the source does not say it")
    parser.add_argument(
        "--allow-new", metavar="GROUPS", type=_groups, default=(), help=f"layers that may start fresh: {','.join(GROUPS)}"
    )
    parser.add_argument("--num-classes", metavar="N", type=int, help="number of classes of the converted model")
    parser.add_argument(
        "--clusters", metavar="N,N,N,N", type=_numbers, help="number of clusters of each stage, e.g. 200,200,200,0"
    )
    return parser


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(text.split(","))
    if not set(groups) <= set(GROUPS):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(GROUPS)}, got {text!r}")
    return groups


def _numbers(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, e.g. 200,200,200,0, got {text!r}")
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
