"""Time and memory of inference against the size of the image, beside the same model with plain attention.

    python -m benchmarks.scaling [--model NAME ...] [--image-size 224 448 ... 2048] [--batch 1] [--dtype bfloat16]
        [--rounds 5] [--memory GIB] [--seconds 1800] [--json FILE]

Each size is measured by `benchmarks.step` in a process of its own, so that one that fails takes nothing with it. The default
models have 100 clusters in every stage, and in all but the last; the first one with no clusters at all stands beside. Memory is
what the compiler says of temporaries; what needs more in all than --memory, by default than there is, is compiled and not run.
Time and memory a patch are multiples of those at the smallest size. --seconds limits a size, compiling included; where it is
exceeded, the model's larger sizes are left out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import add_json, publish, table
from benchmarks.programs import FORWARD, native_size
from paca_jax.errors import told_on_the_command_line

MODELS = ("pacavit_small_p2cconv_100", "pacavit_small_p2cconv_100_0")
SIZES = (224, 448, 896, 1344, 1792, 2048)
PLAIN = (0, 0, 0, 0)
PATCH = 4  # pixels a side, in the first stage
_MIB = 2**20


def measure(asked: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """Returns the row of each model and size, from the smallest size to the largest, and the device."""
    rows: list[dict[str, Any]] = []
    device = ""
    for model, clusters in [*((model, None) for model in asked.model), (asked.model[0], PLAIN)]:
        too_long = False
        for size in sorted(asked.image_size):
            found: dict[str, Any] = {"skipped": "a smaller size took too long"}
            if not too_long:
                try:
                    found = _one(asked, model, clusters, size)
                except subprocess.TimeoutExpired:
                    found, too_long = {"skipped": f"longer than {asked.seconds:g} s"}, True
            device = found.pop("device", device)
            rows.append({**found, "model": model, "clusters": clusters, "image_size": size})
    return rows, device


def _one(asked: argparse.Namespace, model: str, clusters: Sequence[int] | None, size: int) -> dict[str, Any]:
    """Returns what `benchmarks.step` measures of one size, with the device, or why it has not.

    Raises:
        TimeoutExpired: if it takes longer than `asked.seconds`.
    """
    options = {
        "--model": [model],
        "--batch": [asked.batch],
        "--image-size": [size],
        "--dtype": [asked.dtype],
        "--program": [FORWARD],
        "--rounds": [asked.rounds],
        "--memory": [] if asked.memory is None else [asked.memory],
        "--clusters": clusters or [],
    }
    flags = [part for name, values in options.items() if values for part in (name, *map(str, values))]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "step.json"
        command = [sys.executable, "-m", "benchmarks.step", *flags, f"--json={file}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=asked.seconds, check=False)
        if done.returncode:
            return {"skipped": failure(done.returncode, done.stderr)}
        result = json.loads(file.read_text())
    return {**result["rows"][0], "device": result["device"]}


def failure(status: int, errors: str) -> str:
    """Returns why a measurement has ended before its time, if for want of memory.

    Raises:
        RuntimeError: if it was for anything else.
    """
    if "RESOURCE_EXHAUSTED" in errors:
        return "out of memory"
    if status == -9:
        return "killed, most likely for want of memory"
    raise RuntimeError(f"A measurement has ended with status {status}:\n{errors[-4000:]}")


def normalise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows with patches, seconds and bytes of temporaries a patch, and these as multiples of the smallest size's.

    Args:
        rows: `model`, `clusters`, `image_size` and, where they are known, `batch`, `seconds` (quartiles) and `temporary_bytes`;
            a model's smallest size comes first.
    """
    result = []
    smallest: dict[tuple[str, bool], dict[str, Any]] = {}
    for row in rows:
        patches = (row["image_size"] // PATCH) ** 2
        found = {**row, "patches": patches}
        if "temporary_bytes" in row:
            found["bytes_a_patch"] = row["temporary_bytes"] / (patches * row["batch"])
        if "seconds" in row:
            found["seconds_a_patch"] = row["seconds"]["median"] / (patches * row["batch"])
        first = smallest.setdefault((row["model"], row["clusters"] == PLAIN), found)
        for relative, value in (("relative_time", "seconds_a_patch"), ("relative_memory", "bytes_a_patch")):
            if value in found and value in first:
                found[relative] = found[value] / first[value]
        result.append(found)
    return result


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the normalised rows as a table."""
    return table(
        ("model",),
        ("pixels", "patches", "ms", "time a patch", "temporaries, MiB", "memory a patch"),
        (
            (
                f"`{row['model']}`" + (", plain attention" if row["clusters"] else ""),
                f"{row['image_size']}",
                f"{row['patches']:,}",
                f"{1e3 * row['seconds']['median']:,.1f}" if "seconds" in row else row["skipped"],
                f"{row['relative_time']:.2f}" if "relative_time" in row else "-",
                f"{row['temporary_bytes'] / _MIB:,.1f}" if "temporary_bytes" in row else "-",
                f"{row['relative_memory']:.2f}" if "relative_memory" in row else "-",
            )
            for row in rows
        ),
    )


def main() -> None:
    """Prints the table, and writes all numbers where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=list(MODELS), metavar="NAME", help=f"by default {' and '.join(MODELS)}")
    parser.add_argument("--image-size", type=int, nargs="+", default=SIZES, metavar="N", help="by default 224 to 2048")
    parser.add_argument("--batch", type=int, default=1, help="images a step, by default 1")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="by default float32")
    parser.add_argument("--rounds", type=int, default=5, help="steps that count, by default 5")
    parser.add_argument("--memory", type=float, metavar="GIB", help="do not run what needs more, by default than there is")
    parser.add_argument("--seconds", type=float, default=1800, help="give up a size after so long, by default 1800")
    add_json(parser)
    asked = parser.parse_args()
    for model in asked.model:
        native_size(model)
    measured, device = measure(asked)
    rows = normalise(measured)
    publish(markdown(rows), rows, asked.json, device)


if __name__ == "__main__":
    with told_on_the_command_line():
        main()
