"""Writes a model as a program that runs without this library.

    paca export PLACE OUT [--format stablehlo|onnx] [--weight-dtype int8]

PLACE is a workdir, a safetensors or PyTorch file, its address, a folder of Hugging Face, hf://OWNER/NAME, or an official
model's name (its published weights are downloaded). OUT is a new folder. It gets the program, export.json with its shapes, its
preprocessing and the names of the classes, and certificate.json: the program is run in a process without this library, and
must agree with the model on photographs. StableHLO runs on CPUs, GPUs and TPUs by JAX alone. ONNX needs more packages: pip
install "paca-jax[onnx]", then pip install --no-deps jax2onnx.
"""

import argparse
import re
from collections.abc import Sequence

from paca_jax import export
from paca_jax.cli.sources import add_reading_options, print_departures, read_source
from paca_jax.command_line import Parser, command_line
from paca_jax.errors import UserError, one_line
from paca_jax.export.weights import WEIGHT_DTYPES
from paca_jax.files import check_new_folder

FORMATS = ("stablehlo", "onnx")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    with command_line():
        _export(_parser().parse_args(argv))


def _export(arguments: argparse.Namespace) -> None:
    folder = check_new_folder(arguments.out)
    size = None if arguments.size is None else size_option(arguments.size)
    loaded = read_source(arguments.source, arguments)
    write = export.onnx if arguments.format == "onnx" else export.stablehlo
    certificate = write(loaded.model, loaded.variables, folder, loaded.class_names, size, arguments.weight_dtype)
    files = ", ".join(f"{path.name} ({path.stat().length:,} bytes)" for path in sorted(folder.iterdir()))
    print(one_line(f"Wrote {folder}: {loaded.recipe['name']}; {files}."))
    differences = ", ".join(f"{name} {difference:.1e}" for name, difference in certificate.differences.items())
    count = len(certificate.pictures)
    print(f"Run without this library on {count} photographs; largest differences from the model: {differences}.")
    if certificate.rounding is not None:
        _print_rounding(certificate.rounding)
    print_departures(loaded)


def _print_rounding(rounding: export.Rounding) -> None:
    changes = [f"{name} {difference:.1e}" for name, difference in rounding.differences.items()]
    if rounding.agreement is not None:
        changes.append(f"{rounding.agreement:.1%} of the answers remain")
    print(f"That model has the same rounded kernels; by rounding them: {', '.join(changes) or 'no detections to compare'}.")


def size_option(text: str) -> tuple[int, int]:
    """Returns the height and width of an option "HEIGHTxWIDTH".

    Raises:
        UserError: if it is none.
    """
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None:
        raise UserError(f"Expected --size as HEIGHTxWIDTH in pixels, such as 800x1344, got {text!r}. Correct it.")
    return int(found[1]), int(found[2])


def _parser() -> Parser:
    parser = Parser("paca export", __doc__)
    parser.add_argument("source", metavar="PLACE", help="workdir, file of weights or its address, or an official model's name")
    parser.add_argument("out", metavar="OUT", help="the folder to write to, new or empty")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="the form of the program (default: stablehlo)")
    parser.add_argument("--size", metavar="HxW", help="the size in pixels that a detector takes (default: a square)")
    parser.add_argument(
        "--weight-dtype", choices=WEIGHT_DTYPES, default=WEIGHT_DTYPES[0], help="how kernels are stored (default: float32)"
    )
    add_reading_options(parser)
    return parser
