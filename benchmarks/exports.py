"""Exports models with random weights in each format and prints how far the programs are from the models.

    python -m benchmarks.exports [--model NAME ...] [--format stablehlo onnx] [--weight-dtype float32 int8] [--size HxW]
        [--rows FILE] [--json FILE]

The default is every model. Each export is run on photographs, as always; detectors take images of --size. With --rows each
result is added to FILE as a line of JSON, results that are there already are not measured again, and the table has all of them.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import add_json, publish, table
from paca_jax import export
from paca_jax.cli.export import FORMATS, size_option
from paca_jax.command_line import Parser, command_line
from paca_jax.export.weights import WEIGHT_DTYPES
from paca_jax.models import Detector, create_model, list_models

SIZE = (320, 320)
_KEY = ("model", "format", "weight_dtype")


def measure(name: str, form: str, weight_dtype: str, size: tuple[int, int]) -> dict[str, Any]:
    """Exports a model and returns the row of it: its size in bytes, the seconds it took, and the numbers of the certificate."""
    model = create_model(name)
    variables = random_variables(model)
    canvas = size if isinstance(model, Detector) else None
    with tempfile.TemporaryDirectory(prefix="paca-export-") as temporary:
        folder = Path(temporary) / "new"
        start = time.perf_counter()
        write = export.onnx if form == "onnx" else export.stablehlo
        done = write(model, variables, folder, size=canvas, weight_dtype=weight_dtype)
        seconds = time.perf_counter() - start
        size_bytes = (folder / done.file).stat().st_size
    row = {"bytes": size_bytes, "seconds": seconds, "difference": done.largest_difference, "images": done.images}
    if done.rounding is not None:
        row |= {"agreement": done.rounding.agreement, "rounding": done.rounding.differences}
    return {"model": name, "format": form, "weight_dtype": weight_dtype, **row}


def random_variables(model: Any) -> Any:
    """Returns variables drawn by NumPy: kernels that keep the variance, positive variances, and vectors near 0 or 1."""
    rng = np.random.default_rng(0)
    channels = model.config.image_channels

    def draw(keys: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        noise = rng.standard_normal(leaf.shape, np.float32)
        if leaf.ndim > 1:
            return jnp.asarray(noise / np.sqrt(leaf.size / leaf.shape[-1]), leaf.dtype)
        ones = keys[-1].key in ("scale", "var", "count")
        return jnp.asarray(np.abs(ones + 0.1 * noise) if ones else 0.1 * noise, leaf.dtype)

    return jax.tree_util.tree_map_with_path(
        draw, jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, channels)))
    )


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = []
    for row in rows:
        rounding = row.get("rounding")
        changes = "-" if not rounding else f"{max(rounding.values()):.1e}"
        agreement = "-" if row.get("agreement") is None else f"{100 * row['agreement']:.1f} %"
        sizes = (f"{row['bytes'] / 1e6:.1f}", f"{row['difference']:.1e}", changes, agreement, f"{row['seconds']:.0f}")
        lines.append((f"`{row['model']}`", row["format"], row["weight_dtype"], *sizes))
    numbers = ("MB", "largest difference", "by rounding", "same answers", "s to export and run")
    return table(("model", "format", "kernels"), numbers, lines)


def main() -> None:
    """Exports what the command line asks for and prints the table."""
    arguments = _parser().parse_args()
    size = SIZE if arguments.size is None else size_option(arguments.size)
    rows = _read(arguments.rows) if arguments.rows else []
    done = {tuple(row[key] for key in _KEY) for row in rows}
    for case in _cases(arguments):
        if case in done:
            continue
        row = measure(*case, size)
        print(json.dumps(row), flush=True)
        rows.append(row)
        if arguments.rows:
            with arguments.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
        jax.clear_caches()
    publish(markdown(rows), rows, arguments.json)


def _cases(arguments: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    for name in arguments.model:
        for form in arguments.format:
            for weight_dtype in arguments.weight_dtype:
                yield name, form, weight_dtype


def _read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _parser() -> Parser:
    parser = Parser("python -m benchmarks.exports", __doc__)
    parser.add_argument("--model", nargs="+", metavar="NAME", choices=list_models(), default=list_models(), help="the models")
    parser.add_argument("--format", nargs="+", choices=FORMATS, default=FORMATS, help="the formats (default: both)")
    parser.add_argument(
        "--weight-dtype", nargs="+", choices=WEIGHT_DTYPES, default=WEIGHT_DTYPES[:1], help="how kernels are stored"
    )
    parser.add_argument("--size", metavar="HxW", help="the size in pixels that detectors take (default: 320x320)")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="lines of JSON to add to, and not to measure again")
    add_json(parser)
    return parser


if __name__ == "__main__":
    with command_line():
        main()
