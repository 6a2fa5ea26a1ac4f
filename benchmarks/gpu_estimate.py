"""Counts the bytes that models' forward pass and training step move on a GPU, in total and by operation.

    python -m benchmarks.gpu_estimate [--model NAME ...] [--batch 128 ...] [--image-size N ...] [--dtype bfloat16]
        [--gpu h100] [--operations 15] [--json FILE]

Programs are compiled ahead of time by JAX's CUDA compiler (pip install "paca-jax[cuda12]", or cuda13), which takes minutes per
program; nothing is run, and nothing is tuned. Bytes are the operands and results of every kernel, once each: what a kernel
reads twice counts once, so they are a floor. The milliseconds are those bytes over the published bandwidth of the memory, and
the FLOPs over the published peak: an estimate that no program reaches.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from benchmarks.kernels import compile_only_chip
from benchmarks.measure import add_json, gib, publish, table
from benchmarks.programs import Program, add_cases, cases, programs
from benchmarks.tpu_estimate import part
from paca_jax.command_line import Parser, command_line
from paca_jax.planning.flops import matrix_flops
from paca_jax.planning.hlo import Module, parse
from paca_jax.planning.topology import CHIPS, Chip

_NO_KERNEL = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all")


class Launch(NamedTuple):
    """A kernel of a program: the part of the model that it comes from, and the bytes of its operands and results."""

    part: str
    bytes: int


def launches(module: Module) -> Iterator[Launch]:
    """Yields each kernel that a program launches, as often as it does."""
    for instruction, computation, times in module.running(inner=False):
        if instruction.opcode not in _NO_KERNEL:
            read = sum(size for _, size in module.operands(instruction, computation))
            moved = read + sum(shape.bytes for shape in instruction.results)
            yield from [Launch(part(instruction.source), moved)] * times


def estimate(program: Program, device: jax.Device) -> dict[str, Any]:
    """Compiles a program and returns its kernels, its bytes in total and by operation, its FLOPs and the costs of compiling."""
    compiled = program.compile(device)
    found = list(launches(parse(compiled.executable.as_text() or "")))
    by_operation: Counter[str] = Counter()
    for launch in found:
        by_operation[launch.part] += launch.bytes
    return {
        "kernels": len(found),
        "bytes": by_operation.total(),
        "matrix_flops": matrix_flops(compiled.traced.jaxpr.jaxpr),
        **compiled.costs(),
        "operations": dict(by_operation.most_common()),
    }


def markdown(rows: list[dict[str, Any]], gpu: Chip, most: int) -> str:
    """Returns a table of the programs and, for each of them, a table of the `most` operations that move the most bytes."""
    programs_ = table(
        ("model", "program"),
        ("batch", "pixels", "kernels", "GB", "ms for bytes", "GFLOP", "ms for FLOPs", "temporaries, GiB", "compiled in, s"),
        (
            (
                f"`{row['model']}`",
                row["program"],
                f"{row['batch']}",
                f"{row['image_size']}",
                f"{row['kernels']:,}",
                f"{row['bytes'] / 1e9:.1f}",
                f"{1e3 * row['bytes'] / gpu.bandwidth:.1f}",
                f"{row['matrix_flops'] / 1e9:,.0f}",
                f"{1e3 * row['matrix_flops'] / gpu.peak_flops:.1f}",
                gib(row["temporary_bytes"]),
                f"{row['compile_seconds']:.0f}",
            )
            for row in rows
        ),
    )
    return "\n\n".join([programs_, *(_largest(row, most) for row in rows if most)])


def _largest(row: dict[str, Any], most: int) -> str:
    title = f"`{row['model']}`, {row['program']}, batch {row['batch']}, {row['image_size']} pixels"
    listed = list(row["operations"].items())[:most]
    return table((title,), ("GB", "fraction"), ((name, f"{n / 1e9:.2f}", f"{n / row['bytes']:.1%}") for name, n in listed))


def main() -> None:
    """Prints the tables and writes the JSON file."""
    parser = Parser(description=__doc__)
    add_cases(parser, model="pacavit_small_p2cconv_100_0", batch=128, dtype="bfloat16")
    kinds = [kind for kind, chip in CHIPS.items() if chip.platform == "gpu"]
    parser.add_argument("--gpu", choices=kinds, default="h100", help="by default h100")
    parser.add_argument("--operations", type=int, default=15, metavar="N", help="operations to list, by default 15")
    add_json(parser)
    args = parser.parse_args()
    device, gpu = compile_only_chip(f"{args.gpu}:1")
    rows = []
    for case in cases(args):
        for name, program in programs(case).items():
            rows.append({**dataclasses.asdict(case), "program": name, **estimate(program, device)})
    publish(markdown(rows, gpu, args.operations), rows, args.json, f"estimate for {args.gpu}")


if __name__ == "__main__":
    with command_line():
        main()
