"""Converts weights from one form to another.

    paca convert SOURCE DESTINATION [--model NAME] [--weights raw|ema] [--allow-new GROUPS]

SOURCE is a workdir, a safetensors or PyTorch file, its address, a folder of Hugging Face, hf://OWNER/NAME, or an official
model's name (its published weights are downloaded). DESTINATION is a `.safetensors` or `.pth` file, which the official code
loads with `strict=True`, or a new folder for `paca_jax.load` and `--config.init_from`. A file is replaced only with
--overwrite, a folder never. The model's options, the size of its images and the names of its classes are kept: for a `.pth` in
DESTINATION.json, which must stay beside it.
"""

import argparse
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from paca_jax.checkpoints.files import SUFFIXES, TORCH_SUFFIXES, sidecar, write_state_dict
from paca_jax.checkpoints.loading import Loaded, read_model
from paca_jax.cli.sources import print_departures, read_class_names
from paca_jax.command_line import Parser, command_line
from paca_jax.convert import to_torch
from paca_jax.convert.checkpoint import WEIGHTS
from paca_jax.errors import UserError, one_line
from paca_jax.models.variables import GROUPS
from paca_jax.paths import user_path


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    with command_line():
        _convert(_parser().parse_args(argv))


def _convert(arguments: argparse.Namespace) -> None:
    destination = _checked_destination(arguments.destination, arguments.overwrite)
    options = ("num_classes", "clusters", "image_size")
    overrides: dict[str, Any] = {key: value for key in options if (value := getattr(arguments, key)) is not None}
    loaded = read_model(
        arguments.source,
        arguments.model,
        weights=arguments.weights,
        allow_new=arguments.allow_new,
        rgb_to_gray=arguments.rgb_to_gray,
        allow_nonfinite=arguments.allow_nonfinite,
        class_names=read_class_names(arguments.class_names),
        **overrides,
    )
    state = to_torch(loaded.variables, loaded.model)
    if destination.suffix in SUFFIXES:
        write_state_dict(destination, state, loaded.recipe, loaded.class_names)
    else:
        from paca_jax.checkpoints.workdir import write_variables

        names = {} if loaded.class_names is None else {"class_names": list(loaded.class_names)}
        write_variables(destination, loaded.variables, {"model": loaded.recipe, **names})
    _report(destination, loaded, state)


def _checked_destination(typed: str, overwrite: bool) -> epath.Path:
    """Returns the path of a destination, if it may be written."""
    destination = user_path(typed)
    if destination.suffix not in SUFFIXES:
        if re.fullmatch(r"\.[A-Za-z]+", destination.suffix):
            raise UserError(
                f"Expected a destination that ends in {', '.join(SUFFIXES)}, or a new folder, got {str(destination)!r}."
            )
        from paca_jax.checkpoints.workdir import INCOMPLETE  # Orbax takes seconds to import

        if destination.exists() and not (
            destination.is_dir() and {path.name for path in destination.iterdir()} <= {INCOMPLETE}
        ):
            raise UserError(f"{destination} exists already and is not empty. Choose another destination, or delete it.")
        return destination
    for path in (destination, *([sidecar(destination)] if destination.suffix in TORCH_SUFFIXES else [])):
        if path.exists() and not (overwrite and path.is_file()):
            raise UserError(f"{path} exists already. Choose another destination, or replace a file with --overwrite.")
    return destination


def _report(destination: epath.Path, loaded: Loaded, state: dict[str, np.ndarray]) -> None:
    numbers = sum(array.size for array in state.values())
    print(one_line(f"Wrote {destination}: {loaded.recipe['name']}, {len(state)} arrays, {numbers:,} numbers."))
    if destination.suffix in TORCH_SUFFIXES:
        name = one_line(sidecar(destination).name)
        print(f"Keep {name} beside it: it holds the model's options and the names of its classes.")
    print_departures(loaded)


def _parser() -> Parser:
    parser = Parser("paca convert", __doc__)
    parser.add_argument("source", metavar="SOURCE", help="workdir, file of weights or its address, or an official model's name")
    parser.add_argument("destination", metavar="DESTINATION", help=".safetensors, .pth, or a new folder")
    parser.add_argument("--model", metavar="NAME", help="the model's name, if the source does not say it")
    parser.add_argument(
        "--allow-new", metavar="GROUPS", type=_groups, default=(), help=f"layers that may start fresh: {','.join(GROUPS)}"
    )
    parser.add_argument("--weights", choices=WEIGHTS, help="the weights or their average, if the source has both")
    parser.add_argument("--rgb-to-gray", action="store_true", help="sum the first kernel over RGB, for a model of gray images")
    parser.add_argument("--num-classes", metavar="N", type=int, help="number of classes of the converted model")
    parser.add_argument(
        "--clusters", metavar="N,N,N,N", type=_numbers, help="number of clusters of each stage, e.g. 200,200,200,0"
    )
    parser.add_argument("--image-size", metavar="N", type=int, help="the side in pixels of the images that the model is for")
    parser.add_argument("--class-names", metavar="FILE", help="a text file with the name of a class in each line")
    parser.add_argument("--allow-nonfinite", action="store_true", help="accept weights that are NaN or infinite")
    parser.add_argument("--overwrite", action="store_true", help="replace DESTINATION if it is a file")
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
