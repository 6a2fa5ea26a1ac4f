"""Times inference and training on whatever device JAX finds: images a second, memory, compile time.

    python -m benchmarks.step [--model NAME ...] [--batch N ...] [--image-size N ...] [--dtype bfloat16] [--rounds 10]
        [--program forward training] [--clusters 0 0 0 0] [--remat] [--memory GIB] [--json FILE]

Inference is the forward pass to the logits; training is the whole step: cross-entropy, gradient, AdamW. Images a second are of
the median of the rounds, a step each, after two that do not count; images are on the device beforehand. Batch 1 gives latency.
Compile time is that of an empty cache. Memory is what the compiler says a step holds at most: state, images, temporaries; where
the device counts its own (GPUs and TPUs do), its peak stands beside. What needs more than there is, is compiled and not run.
JAX_PLATFORMS=cpu chooses the CPU where there is another device.
"""

import argparse
import dataclasses
from typing import Any

import jax

from benchmarks.measure import (
    GIB,
    add_json,
    device_memory,
    device_name,
    gib,
    interleaved,
    memory,
    publish,
    quartiles,
    spread,
    table,
)
from benchmarks.programs import FORWARD, TRAINING, Program, add_cases, cases, programs
from paca_jax.errors import told_on_the_command_line
from paca_jax.memory import keep_freed_memory


def measure(program: Program, batch: int, rounds: int, most_bytes: float) -> dict[str, Any]:
    """Compiles a program and runs it, unless it needs more memory.

    Args:
        program: a step.
        batch: its images.
        rounds: steps that count.
        most_bytes: of memory.

    Returns:
        What compiling took and what a step needs; then either `seconds` (quartiles), `images_per_second` and, where the device
        tells it and no earlier step has needed more, `device_peak_bytes`; or the reason why it was `skipped`.
    """
    compiled = program.compile()
    costs = compiled.costs()
    if costs["total_bytes"] > most_bytes:
        return {**costs, "skipped": f"needs {gib(costs['total_bytes'])} GiB"}
    before = device_memory("peak_bytes_in_use")
    seconds = quartiles(interleaved({"": compiled.runner()}, rounds)[""])
    peak = device_memory("peak_bytes_in_use")
    return {
        **costs,
        "seconds": seconds._asdict(),
        "images_per_second": batch / seconds.median,
        "device_peak_bytes": peak if peak > before else None,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a table."""
    return table(
        ("model", "program"),
        (
            "batch",
            "pixels",
            "ms (quartiles)",
            "images/s",
            "memory, GiB",
            "temporaries, GiB",
            "device's peak, GiB",
            "compiled in, s",
        ),
        (
            (
                f"`{row['model']}`" + (f" {row['clusters']}" if row["clusters"] else "") + (" remat" if row["remat"] else ""),
                row["program"],
                f"{row['batch']}",
                f"{row['image_size']}",
                *_speed(row),
                gib(row["total_bytes"]),
                gib(row["temporary_bytes"]),
                gib(row["device_peak_bytes"]) if row.get("device_peak_bytes") else "-",
                f"{row['compile_seconds']:.1f}",
            )
            for row in rows
        ),
    )


def _speed(row: dict[str, Any]) -> tuple[str, str]:
    if "skipped" in row:
        return row["skipped"], "-"
    return spread(row["seconds"], 1e3, 1), f"{row['images_per_second']:.1f}"


def main() -> None:
    """Prints the table, and writes all numbers where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_cases(parser, model="pacavit_tiny_p2cconv_100_0", batch=8, dtype="float32")
    parser.add_argument(
        "--program", nargs="+", choices=(FORWARD, TRAINING), default=(FORWARD, TRAINING), help="by default both"
    )
    parser.add_argument("--clusters", type=int, nargs=4, metavar="N", help="of each stage, 0 for plain attention")
    parser.add_argument("--remat", action="store_true", help="compute blocks anew in the gradient")
    parser.add_argument("--rounds", type=int, default=10, help="steps that count, by default 10")
    parser.add_argument("--memory", type=float, metavar="GIB", help="do not run what needs more, by default than there is")
    add_json(parser)
    asked = parser.parse_args()
    keep_freed_memory()
    jax.config.update("jax_enable_compilation_cache", False)
    clusters = tuple(asked.clusters) if asked.clusters else None
    most_bytes = memory() if asked.memory is None else asked.memory * GIB
    rows = []
    for plain in cases(asked):
        case = dataclasses.replace(plain, clusters=clusters, remat=asked.remat)
        for name, program in programs(case).items():
            if name in asked.program:
                measured = measure(program, case.batch, asked.rounds, most_bytes)
                rows.append({**dataclasses.asdict(case), "program": name, "rounds": asked.rounds, **measured})
    publish(markdown(rows), rows, asked.json, device_name())


if __name__ == "__main__":
    with told_on_the_command_line():
        main()
