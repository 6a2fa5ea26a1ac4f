"""Measures what kernels in 8 bits cost a trained run: its scores, and the sizes and the speed of its exports.

    python -m benchmarks.int8 WORKDIR [--format stablehlo onnx] [--rounds 200] [--json FILE]

The evaluation is that of `paca evaluate` with the variables of the newest checkpoint, and with the same variables whose kernels
are rounded as `paca export --weight-dtype=int8` does; the certificate of that export proves that its program is this model. A
round runs both programs of a format once, on one photograph; the formats follow each other, since threads of ONNX Runtime that
wait for work would slow down JAX. Ratios are of times in the same round, to the program with float32 kernels.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

import paca_jax
from benchmarks.measure import add_json, interleaved, publish, quartiles, spread, table
from paca_jax.cli.export import FORMATS
from paca_jax.command_line import Parser, command_line
from paca_jax.export.certification.isolated import load_onnx
from paca_jax.export.certification.pictures import Inputs, example_inputs
from paca_jax.export.program import make_program
from paca_jax.export.weights import WEIGHT_DTYPES, restored, rounded
from paca_jax.memory import keep_freed_memory
from paca_jax.train.evaluation import evaluate
from paca_jax.train.run import prepare
from paca_jax.train.start import recorded_config


def score(workdir: str) -> dict[str, dict[str, float]]:
    """Returns {type of kernels: {metric: value}} of the newest checkpoint of a run."""
    _, variables = paca_jax.load(workdir)
    run = prepare(recorded_config(workdir))
    kernels = {"float32": variables, "int8": restored(rounded(jax.device_get(variables)))}
    return {weight_dtype: evaluate(run, kernels[weight_dtype]) for weight_dtype in WEIGHT_DTYPES}


def measure(workdir: str, formats: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Returns a row for each format and type of kernels: bytes, quartiles of seconds, and of their ratios to float32."""
    model, variables = paca_jax.load(workdir)
    inputs = example_inputs(make_program(model, variables, None))[-1]
    rows = []
    with tempfile.TemporaryDirectory(prefix="paca-export-") as temporary:
        for form in formats:
            files = {}
            for weight_dtype in WEIGHT_DTYPES:
                folder = Path(temporary) / form / weight_dtype
                done = getattr(paca_jax.export, form)(model, variables, folder, weight_dtype=weight_dtype)
                files[weight_dtype] = folder / done.file
            durations = interleaved({name: _caller(file, inputs) for name, file in files.items()}, rounds)
            for name, file in files.items():
                row = {"format": form, "weight_dtype": name, "bytes": file.stat().st_size}
                ratios = [ours / theirs for ours, theirs in zip(durations[name], durations["float32"], strict=True)]
                rows.append({**row, "seconds": quartiles(durations[name])._asdict(), "ratio": quartiles(ratios)._asdict()})
    return rows


def _caller(file: Path, inputs: Inputs) -> Callable[[], object]:
    if file.suffix == ".onnx":
        session = load_onnx(file)
        return lambda: session(inputs)
    call = jax.jit(jax.export.deserialize(bytearray(file.read_bytes())).call)
    return lambda: jax.block_until_ready(call(*inputs.values()))


def markdown(scores: dict[str, dict[str, float]], rows: list[dict[str, Any]]) -> str:
    """Returns a table of the scores and one of the exports."""
    names = list(scores["float32"])
    first = [(weight_dtype, *(f"{found[name]:.4f}" for name in names)) for weight_dtype, found in scores.items()]
    second = [
        (
            row["format"],
            row["weight_dtype"],
            f"{row['bytes'] / 1e6:.2f}",
            spread(row["seconds"], 1e3, 1),
            spread(row["ratio"], 1, 2),
        )
        for row in rows
    ]
    exports = table(("format", "kernels"), ("MB", "ms (quartiles)", "time to float32's (quartiles)"), second)
    return f"{table(('kernels',), names, first)}\n\n{exports}"


def main() -> None:
    """Prints the tables of a run."""
    parser = Parser("python -m benchmarks.int8", __doc__)
    parser.add_argument("workdir", metavar="WORKDIR", help="the workdir of a run that trained")
    parser.add_argument("--format", nargs="+", choices=FORMATS, default=FORMATS[:1], help="the formats (default: stablehlo)")
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="timed rounds (default: 200)")
    add_json(parser)
    arguments = parser.parse_args()
    keep_freed_memory()
    scores = score(arguments.workdir)
    rows = measure(arguments.workdir, arguments.format, arguments.rounds)
    publish(markdown(scores, rows), [{"scores": scores}, *rows], arguments.json)


if __name__ == "__main__":
    with command_line():
        main()
