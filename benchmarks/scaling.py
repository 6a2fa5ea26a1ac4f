"""Measures time and memory of inference by image size, also for the same model with plain attention.

    python -m benchmarks.scaling [--model NAME ...] [--image-size 224 448 ... 2048] [--batch 1] [--dtype bfloat16]
        [--rounds 5] [--memory GIB] [--json FILE]

The default models have 100 clusters in every stage and in all stages but the last; the first model also runs without clusters.
A round runs one step of each model and size, so that other load on the machine affects them equally and small images do not
find warmer caches than large ones. Memory is the compiler's number for temporaries; a program that needs more than --memory in
total, by default the available memory, is compiled but not run. Time and memory per patch are multiples of those at the
smallest size, the time in the same round.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.measure import GIB, MIB, add_json, device_name, gib, interleaved, memory, publish, quartiles, spread, table
from benchmarks.programs import FORWARD, Case, native_size, programs
from paca_jax.command_line import Parser, command_line
from paca_jax.memory import keep_freed_memory

MODELS = ("pacavit_small_p2cconv_100", "pacavit_small_p2cconv_100_0")
SIZES = (224, 448, 896, 1344, 1792, 2048)
PLAIN = (0, 0, 0, 0)
PATCH = 4  # side in pixels, in the first stage


def measure(cases: Iterable[Case], rounds: int, most_bytes: float) -> list[dict[str, Any]]:
    """Compiles the forward pass of each case, and times those in turn that fit into the memory.

    Returns:
        For each case its fields, the costs of compiling and of a step, and either `durations`, the seconds of each round, or
        `skipped`, the reason.
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
    """Returns the rows with patches, quartiles of seconds, and time and memory per patch relative to the smallest size.

    Args:
        rows: the rows of `measure`, with the smallest size of each model first.
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
        ("pixels", "patches", "ms (quartiles)", "time per patch (quartiles)", "temporaries, MiB", "memory per patch"),
        (
            (
                f"`{row['model']}`" + (", plain attention" if row["clusters"] else ""),
                f"{row['image_size']}",
                f"{row['patches']:,}",
                spread(row["seconds"], 1e3, 1) if "seconds" in row else row["skipped"],
                spread(row["relative_time"], 1, 2) if "relative_time" in row else "-",
                f"{row['temporary_bytes'] / MIB:,.1f}",
                f"{row['relative_memory']:.2f}",
            )
            for row in rows
        ),
    )


def main() -> None:
    """Prints the table and writes the JSON file."""
    parser = Parser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=list(MODELS), metavar="NAME", help=f"by default {' and '.join(MODELS)}")
    parser.add_argument("--image-size", type=int, nargs="+", default=SIZES, metavar="N", help="by default 224 to 2048")
    parser.add_argument("--batch", type=int, default=1, help="images per step, by default 1")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="by default float32")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps, by default 5")
    parser.add_argument("--memory", type=float, metavar="GIB", help="skip programs that need more; default: free memory")
    add_json(parser)
    args = parser.parse_args()
    keep_freed_memory()
    for model in args.model:
        native_size(model)
    kinds = [*((model, None) for model in args.model), (args.model[0], PLAIN)]
    selected = [
        Case(model, args.batch, size, args.dtype, clusters) for model, clusters in kinds for size in sorted(args.image_size)
    ]
    most_bytes = memory() if args.memory is None else args.memory * GIB
    rows = normalize(measure(selected, args.rounds, most_bytes))
    publish(markdown(rows), rows, args.json, device_name())


if __name__ == "__main__":
    with command_line():
        main()
