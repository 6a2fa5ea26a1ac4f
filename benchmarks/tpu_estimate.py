"""Estimates the cycles of models' forward pass and training step on a TPU chip, in total and by operation.

    python -m benchmarks.tpu_estimate [--model NAME ...] [--batch 128 ...] [--image-size N ...] [--dtype bfloat16]
        [--topology v5e:1x1] [--operations 15] [--json FILE]

Programs are compiled ahead of time with libtpu (pip install "paca-jax[tpu]"), which takes minutes per model; nothing is run.
Cycles are the sum of the compiler's estimates over the optimized program. It has none for Pallas kernels: each counts the
bundles of its schedule, loops as often as they run, or the time of its bytes if that is longer. ViT-S/16 is included for
comparison. Set ALLOW_MULTIPLE_LIBTPU_LOAD=1 if another process holds libtpu and no TPU is attached.
"""

import dataclasses
import re
from collections import Counter
from typing import Any

import jax

from benchmarks.kernels import CUSTOM_CALL, Key, add_topology, compile_only_chip, kernel_cycles
from benchmarks.measure import add_json, gib, publish, table
from benchmarks.programs import VIT, Program, cases, programs
from paca_jax.command_line import Parser, command_line
from paca_jax.planning.flops import matrix_flops
from paca_jax.planning.hlo import Computation, Instruction, Module, parse
from paca_jax.planning.topology import Chip

KERNEL = "kernel "
# Ignored parts of the path to an operation: block numbers, transformations of JAX, classes and einsums.
_NO_PART = re.compile(r"(stage|block)\d+|[A-Z].*|.*[.,;(\[].*|cond|branch_\d+_fun|while|body|closed_call|checkpoint|remat\w*")


def estimate(program: Program, device: jax.Device, chip: Chip, known: dict[Key, int]) -> dict[str, Any]:
    """Compiles a program and returns its cycles, in total and by operation, its FLOPs and the costs of compiling.

    Args:
        program: the program.
        device: a compile-only device.
        chip: its specification.
        known: the cycles of the kernels of the program.
    """
    compiled = program.compile(device)
    by_operation = operations(parse(compiled.executable.as_text() or ""), chip, known)
    return {
        "cycles": sum(by_operation.values()),
        "kernel_cycles": sum(cycles for name, cycles in by_operation.items() if name.startswith(KERNEL)),
        "matrix_flops": matrix_flops(compiled.traced.jaxpr.jaxpr),
        **compiled.costs(),
        "operations": dict(by_operation.most_common()),
    }


def operations(module: Module, chip: Chip, known: dict[Key, int]) -> Counter[str]:
    """Returns the cycles of a program by the part of the model they come from, and by kernel."""
    found: Counter[str] = Counter()
    for instruction, computation, times in module.running():
        if CUSTOM_CALL in instruction.attributes:
            name = instruction.source.split("/")[-2]  # .../NAME/pallas_call
            found[KERNEL + name] += _kernel(name, instruction, computation, chip, known) * times
        else:
            found[part(instruction.source)] += instruction.cycles * times
    return found


def _kernel(name: str, instruction: Instruction, computation: Computation, chip: Chip, known: dict[Key, int]) -> int:
    """Returns the cycles of a kernel: those of its schedule or those of its bytes, whichever is larger."""
    operands = [shape for operand in instruction.operands for shape in computation[operand].results]
    moved = sum(shape.bytes for shape in (*operands, *instruction.results) if shape.in_hbm)
    scheduled = known[name, tuple(shape.dimensions for shape in operands)]
    return max(scheduled, round(moved / chip.bandwidth * chip.clock_hz))


def part(source: str) -> str:
    """Returns `mlp/depthwise, backward` of `jit(f)/transpose(jvp(PaCaViT))/stage3/block7/mlp/depthwise/conv`."""
    parts = [word for word in source.split("/")[:-1] if not _NO_PART.fullmatch(word)]
    return ("/".join(parts[:2]) or "rest") + (", backward" if "transpose(" in source else "")


def markdown(rows: list[dict[str, Any]], chip: Chip, most: int) -> str:
    """Returns a table of the programs and, for each of them, a table of its `most` most expensive operations."""
    programs_ = table(
        ("model", "program"),
        (
            "batch",
            "pixels",
            "cycles per image",
            "in kernels",
            "FLOPs per cycle",
            "of peak",
            "temporaries, GiB",
            "compiled in, s",
        ),
        (
            (
                f"`{row['model']}`",
                row["program"],
                f"{row['batch']}",
                f"{row['image_size']}",
                f"{row['cycles'] / row['batch']:,.0f}",
                f"{row['kernel_cycles'] / row['cycles']:.0%}",
                f"{row['matrix_flops'] / row['cycles']:,.0f}",
                f"{row['matrix_flops'] / row['cycles'] * chip.clock_hz / chip.peak_flops:.1%}",
                gib(row["temporary_bytes"]),
                f"{row['compile_seconds']:.0f}",
            )
            for row in rows
        ),
    )
    return "\n\n".join([programs_, *(_most_expensive(row, most) for row in rows if most)])


def _most_expensive(row: dict[str, Any], most: int) -> str:
    title = f"`{row['model']}`, {row['program']}, batch {row['batch']}, {row['image_size']} pixels"
    listed = list(row["operations"].items())[:most]
    lines = ((name, f"{cycles / row['batch']:,.0f}", f"{cycles / row['cycles']:.1%}") for name, cycles in listed)
    return table((title,), ("cycles per image", "fraction"), lines)


def main() -> None:
    """Prints the tables and writes the JSON file."""
    parser = Parser(description=__doc__)
    add_topology(parser)
    parser.add_argument(
        "--operations", type=int, default=15, metavar="N", help="number of the most expensive to list, by default 15"
    )
    add_json(parser)
    args = parser.parse_args()
    device, chip = compile_only_chip(args.topology)
    known = kernel_cycles(args)
    args.model.append(VIT)
    rows = []
    for case in cases(args):
        for name, program in programs(case).items():
            found = estimate(program, device, chip, known)
            rows.append({**dataclasses.asdict(case), "program": name, **found})
    publish(markdown(rows, chip, args.operations), rows, args.json, f"estimate for {args.topology}")


if __name__ == "__main__":
    with command_line():
        main()
