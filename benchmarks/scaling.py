"""Time and memory of inference against the size of the image, beside the same model with plain attention.

    python -m benchmarks.scaling [--model NAME ...] [--image-size 224 448 ... 2048] [--batch 1] [--dtype bfloat16]
        [--rounds 5] [--memory GIB] [--json FILE]

The default models have 100 clusters in every stage, and in all but the last; the first one with no clusters at all stands
beside. A round makes one step of each model and size, so that whatever else the machine does strikes them alike, and a small
image finds no warmer caches than a large one. Memory is what the compiler says of temporaries; what needs more in all than
--memory, by default than there is, is compiled and not run. Time and memory a patch are multiples of those at the smallest
size, time in the same round.
"""

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.measure import GIB, add_json, device_name, gib, interleaved, memory, publish, quartiles, spread, table
from benchmarks.programs import FORWARD, Case, native_size, programs
from paca_jax.errors import told_on_the_command_line
from paca_jax.memory import keep_freed_memory

MODELS = ("pacavit_small_p2cconv_100", "pacavit_small_p2cconv_100_0")
SIZES = (224, 448, 896, 1344, 1792, 2048)
PLAIN = (0, 0, 0, 0)
PATCH = 4  # pixels a side, in the first stage
_MIB = 2**20


def measure(cases: Iterable[Case], rounds: int, most_bytes: float) -> list[dict[str, Any]]:
    """Compiles the forward pass of each case, and times in turn those that need no more memory than there is.

    Returns:
        For each case its fields, what compiling took and what a step needs; then either `durations`, the seconds of each
        round, or why it was `skipped`.
    """
    rows, calls = [], {}
    for case in cases:
        compiled = programs(case)[FORWARD].compile()
        row = {**dataclasses.asdict(case), **compiled.costs()}
        if row["total_bytes"] > most_bytes:
            row["skipped"] = f"needs {gib(row['total_bytes'])} GiB"
        else:
            calls[str(len(rows))] = compiled.runner()
        rows.append(row)
    for index, durations in interleaved(calls, rounds).items():
        rows[int(index)]["durations"] = durations
    return rows


def normalize(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows with patches, quartiles of seconds, and time and memory a patch against those of the smallest size.

    Args:
        rows: of `measure`; a model's smallest size comes first.
    """
    result = []
    smallest: dict[tuple[str, Any], dict[str, Any]] = {}
    for row in rows:
        patches = (row["image_size"] // PATCH) ** 2
        found = {**row, "patches": patches}
        first = smallest.setdefault((row["model"], row["clusters"]), found)
        more = patches / first["patches"]
        found["relative_memory"] = row["temporary_bytes"] / first["temporary_bytes"] / more
        if "durations" in row:
            found["seconds"] = quartiles(row["durations"])._asdict()
        if "durations" in row and "durations" in first:
            ratios = [one / other / more for one, other in zip(row["durations"], first["durations"], strict=True)]
            found["relative_time"] = quartiles(ratios)._asdict()
        result.append(found)
    return result


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the normalized rows as a table."""
    return table(
        ("model",),
        ("pixels", "patches", "ms (quartiles)", "time a patch (quartiles)", "temporaries, MiB", "memory a patch"),
        (
            (
                f"`{row['model']}`" + (", plain attention" if row["clusters"] else ""),
                f"{row['image_size']}",
                f"{row['patches']:,}",
                spread(row["seconds"], 1e3, 1) if "seconds" in row else row["skipped"],
                spread(row["relative_time"], 1, 2) if "relative_time" in row else "-",
                f"{row['temporary_bytes'] / _MIB:,.1f}",
                f"{row['relative_memory']:.2f}",
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
    add_json(parser)
    asked = parser.parse_args()
    keep_freed_memory()
    for model in asked.model:
        native_size(model)
    kinds = [*((model, None) for model in asked.model), (asked.model[0], PLAIN)]
    asked_for = [
        Case(model, asked.batch, size, asked.dtype, clusters) for model, clusters in kinds for size in sorted(asked.image_size)
    ]
    most_bytes = memory() if asked.memory is None else asked.memory * GIB
    rows = normalize(measure(asked_for, asked.rounds, most_bytes))
    publish(markdown(rows), rows, asked.json, device_name())


if __name__ == "__main__":
    with told_on_the_command_line():
        main()
