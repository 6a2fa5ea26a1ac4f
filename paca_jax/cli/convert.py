"""`python -m paca_jax.convert SOURCE DESTINATION`: weights from one form to another.

SOURCE is a workdir, a `.safetensors` or `.pth` file, or an official model's name (its published weights are fetched).
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
from paca_jax.checkpoints.loading import Loaded, load_reported
from paca_jax.convert.names import GROUPS
from paca_jax.convert.torch_format import departures, to_torch
from paca_jax.errors import UserError
from paca_jax.models import list_models


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 0, or 2 after one line about what is wrong."""
    arguments = _parser().parse_args(argv)
    try:
        _convert(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _convert(arguments: argparse.Namespace) -> None:
    source, destination = arguments.source, epath.Path(arguments.destination)
    _check_destination(destination)
    overrides: dict[str, Any] = {"num_classes": arguments.num_classes, "clusters": arguments.clusters}
    overrides = {key: value for key, value in overrides.items() if value is not None}
    pretrained = source in list_models() and not epath.Path(source).exists()
    loaded = load_reported(source, arguments.model, pretrained=pretrained, allow_new=arguments.allow_new, **overrides)
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
        raise UserError(f"{destination} exists already; choose another destination, or delete it.")
    if destination.suffix not in SUFFIXES and re.fullmatch(r"\.[A-Za-z]+", destination.suffix):
        raise UserError(f"Destinations end in {', '.join(SUFFIXES)}, or are a new folder, but got {str(destination)!r}.")


def _report(destination: epath.Path, loaded: Loaded, state: dict[str, np.ndarray]) -> None:
    numbers = sum(array.size for array in state.values())
    print(f"Wrote {destination}: {loaded.recipe['name']}, {len(state)} arrays, {numbers:,} numbers.")
    for sentence in departures(loaded.fresh, loaded.unused):
        print(sentence)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paca_jax.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE", help="workdir, .safetensors, .pth, or an official model's name")
    parser.add_argument("destination", metavar="DESTINATION", help=".safetensors, .pth, or a new folder")
    parser.add_argument("--model", metavar="NAME", help="the model's name, where the source does not tell it")
    parser.add_argument(
        "--allow-new", metavar="GROUPS", type=_groups, default=(), help=f"layers that may start fresh: {','.join(GROUPS)}"
    )
    parser.add_argument("--num-classes", metavar="N", type=int, help="classes of the converted model")
    parser.add_argument("--clusters", metavar="N,N,N,N", type=_numbers, help="clusters of each stage, e.g. 200,200,200,0")
    return parser


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(text.split(","))
    if not set(groups) <= set(GROUPS):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(GROUPS)}, but got {text!r}")
    return groups


def _numbers(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"expected numbers with commas between, e.g. 200,200,200,0, but got {text!r}")
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
