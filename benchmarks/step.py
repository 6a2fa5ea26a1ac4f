"""Measures inference and training on the default device of JAX: images per second, memory, compile time.

    python -m benchmarks.step [--model NAME ...] [--batch N ...] [--image-size N ...] [--dtype bfloat16] [--rounds 10]
        [--program forward training] [--clusters 0 0 0 0] [--remat] [--memory GIB] [--steps N]
        [--profile] [--json FILE]

Inference is the forward pass to the logits; training is the whole step: cross-entropy, gradient, AdamW. Images per second are
those of the median of the rounds, after two rounds of warm-up; images are on the device beforehand. A round is one step on a
CPU and ten elsewhere, which are queued as in a run. Batch 1 with --steps 1 measures latency. Compile time is that with an empty
cache. Memory is the compiler's number for a step: state, images and temporaries; if the device reports its own peak, as GPUs
and TPUs do, the table shows it, too. Programs that need more than the available memory are compiled but not run.
With --profile a round more is traced, and a table shows which parts of a model take the time; the JSON has each kernel.
JAX_PLATFORMS=cpu selects the CPU if there is another device.
"""

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
from benchmarks.profiles import by_part, kernel_times
from benchmarks.programs import FORWARD, TRAINING, Program, add_cases, add_steps, cases, programs, steps_at_once
from paca_jax.command_line import Parser, command_line
from paca_jax.memory import keep_freed_memory
from paca_jax.planning.hlo import parse


def measure(
    program: Program, batch: int, rounds: int, most_bytes: float, steps: int = 1, profile: bool = False
) -> dict[str, Any]:
    """Compiles a program and times it, unless it needs too much memory.

    Args:
        program: the step.
        batch: the number of images per step.
        rounds: the number of timed rounds.
        most_bytes: the available memory.
        steps: the steps of a round, which are queued.
        profile: whether to trace a round more.

    Returns:
        The costs of compiling and of a step, and either `seconds` of a step (quartiles), `images_per_second`,
        `device_peak_bytes` (None if the device does not report it or an earlier step needed more) and, with a profile,
        `kernels` (see `kernel_times`), or `skipped`, the reason.
    """
    compiled = program.compile()
    costs = compiled.costs()
    if costs["total_bytes"] > most_bytes:
        return {**costs, "skipped": f"needs {gib(costs['total_bytes'])} GiB"}
    before = device_memory("peak_bytes_in_use")
    run = compiled.runner(steps)
    durations = interleaved({"": run}, rounds)[""]
    seconds = quartiles([duration / steps for duration in durations])
    peak = device_memory("peak_bytes_in_use")
    return {
        **costs,
        "seconds": seconds._asdict(),
        "images_per_second": batch / seconds.median,
        "device_peak_bytes": peak if peak > before else None,
        **({"kernels": kernel_times(run, steps, parse(compiled.executable.as_text() or ""))} if profile else {}),
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a table and, for each that was traced, a table of the parts of the model."""
    steps = table(
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
    return "\n\n".join([steps, *(_parts(row) for row in rows if "kernels" in row)])


def _parts(row: dict[str, Any]) -> str:
    whole = sum(kernel["seconds"] for kernel in row["kernels"])
    return table(
        (f"`{row['model']}`, {row['program']}, batch {row['batch']}",),
        ("kernels", "ms", "fraction"),
        (
            (name, f"{launches:.0f}", f"{1e3 * seconds:.2f}", f"{seconds / whole:.1%}")
            for name, (seconds, launches) in by_part(row["kernels"]).items()
        ),
    )


def _speed(row: dict[str, Any]) -> tuple[str, str]:
    if "skipped" in row:
        return row["skipped"], "-"
    return spread(row["seconds"], 1e3, 1), f"{row['images_per_second']:.1f}"


def main() -> None:
    """Prints the table and writes the JSON file."""
    parser = Parser(description=__doc__)
    add_cases(parser, model="pacavit_tiny_p2cconv_100_0", batch=8, dtype="float32")
    parser.add_argument(
        "--program", nargs="+", choices=(FORWARD, TRAINING), default=(FORWARD, TRAINING), help="by default both"
    )
    parser.add_argument("--clusters", type=int, nargs=4, metavar="N", help="clusters of each stage, 0 for plain attention")
    parser.add_argument("--remat", action="store_true", help="recompute blocks in the backward pass")
    parser.add_argument("--rounds", type=int, default=10, help="timed rounds, by default 10")
    add_steps(parser)
    parser.add_argument("--profile", action="store_true", help="trace a round more, and show where its time goes")
    parser.add_argument("--memory", type=float, metavar="GIB", help="skip programs that need more; default: free memory")
    add_json(parser)
    args = parser.parse_args()
    keep_freed_memory()
    jax.config.update("jax_enable_compilation_cache", False)
    clusters = tuple(args.clusters) if args.clusters else None
    most_bytes = memory() if args.memory is None else args.memory * GIB
    steps = steps_at_once(args)
    rows = []
    for plain in cases(args):
        case = dataclasses.replace(plain, clusters=clusters, remat=args.remat)
        for name, program in programs(case).items():
            if name in args.program:
                measured = measure(program, case.batch, args.rounds, most_bytes, steps, args.profile)
                rows.append({**dataclasses.asdict(case), "program": name, "rounds": args.rounds, "steps": steps, **measured})
    publish(markdown(rows), rows, args.json, device_name())


if __name__ == "__main__":
    with command_line():
        main()
