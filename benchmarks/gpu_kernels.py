"""The registers and instructions of the library's Triton kernels, from their machine code, without a GPU.

    python -m benchmarks.gpu_kernels [--model NAME] [--batch N] [--dtype bfloat16] [--gpu h100] [--nvdisasm PROGRAM]
        [--json FILE]

Each row is a kernel of an operation at one stage, with its gradient, compiled by JAX's CUDA compiler (pip install
"paca-jax[cuda13]", or cuda12). Instructions are those of a warp, in loops as often as they run, of all warps; the
microseconds are their number over four a cycle of each multiprocessor, and the bytes, operands and results once each, over the
published bandwidth. No kernel reaches either, so one whose instructions take longer than its bytes is bound by them. NVIDIA's
disassembler is in the CUDA toolkit, and in the wheel of triton.
"""

import importlib.util
import itertools
import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn

from benchmarks.kernels import compile_only_chip, kernels
from benchmarks.measure import add_json, publish, table
from benchmarks.operations import Case, add_stages, stage_cases
from benchmarks.programs import Program
from paca_jax.command_line import Parser, command_line
from paca_jax.errors import UserError
from paca_jax.planning.flops import equations
from paca_jax.planning.gpus import GPUS, Gpu
from paca_jax.planning.topology import Chip

_LABEL = re.compile(r"\s*(\.L_x_\d+):")
_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;")
_BRANCH = re.compile(r"\bBRA\b.*`\((\.L_x_\d+)\)")
_ENTRY = re.compile(r"\.entry (\w+)")
_TARGET = re.compile(r"^\.target (\w+)", re.MULTILINE)
_THREADS = re.compile(r"\.(?:req|max)ntid (\d+)")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SPILLED = re.compile(r"(\d+) bytes spill (?:stores|loads)")
_WARP = 32  # threads
_SCHEDULERS = 4  # of a multiprocessor, each of which starts an instruction of a warp per cycle


def executed(disassembly: str, trips: Sequence[int]) -> int:
    """Returns the instructions that a warp executes.

    Args:
        disassembly: the text of `nvdisasm -c` for one kernel.
        trips: how often each of its loops runs, in their order.

    Raises:
        ValueError: if it does not have as many loops, none within another.
    """
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    count = 0
    for line in disassembly.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = count
        elif instruction := _INSTRUCTION.match(line):
            branch = _BRANCH.search(instruction[1])
            if branch and labels.get(branch[1], count) < count:  # back; the last instruction of a kernel branches to itself
                loops.append((labels[branch[1]], count + 1))
            count += 1
    if len(loops) != len(trips) or any(end > start for (_, end), (start, _) in itertools.pairwise(loops)):
        raise ValueError(f"Expected {len(trips)} loops one after another, got those of instructions {loops}.")
    return count + sum((trip - 1) * (end - start) for trip, (start, end) in zip(trips, loops, strict=True))


def loop_trips(kernel: Jaxpr) -> list[int]:
    """Returns how often each loop of a kernel runs, but for loops that run once, which no code is made for."""
    loops = (equation.params["length"] for equation in equations(kernel) if equation.primitive.name == "scan")
    return [length for length in loops if length > 1]


def measure(case: Case, dtype: str, device: jax.Device, ptxas: str, nvdisasm: str, dump: Path) -> Iterator[dict[str, Any]]:
    """Compiles an operation with its gradient and yields the figures of each Triton kernel in it.

    Args:
        case: the operation.
        dtype: the type of its arrays.
        device: a compile-only GPU.
        ptxas: the assembler.
        nvdisasm: the disassembler.
        dump: the folder that XLA writes to; it is emptied.
    """

    def run(*arrays: jax.Array) -> tuple[Any, ...]:
        y, pullback = jax.vjp(lambda *arrays: case.function("pallas_gpu", *arrays), *arrays)
        return y, *pullback(arrays[0])

    program = Program(run, lambda: tuple(jax.numpy.zeros(shape, dtype) for shape in case.shapes), 0)
    traced = program.trace(device)
    calls = {equation.params["name"]: equation for equation in kernels(traced.jaxpr.jaxpr)}
    traced.lower().compile()
    written = {entry[1]: file for file in dump.glob("*.ptx") if (entry := _ENTRY.search(file.read_text()))}
    for name in sorted(calls):
        yield {"operation": case.operation, "maps": case.maps, **_figures(calls[name], written[name], ptxas, nvdisasm)}
    for file in dump.iterdir():
        file.unlink()


def _figures(call: JaxprEqn, ptx: Path, ptxas: str, nvdisasm: str) -> dict[str, Any]:
    text, machine_code = ptx.read_text(), ptx.with_suffix(".cubin")
    (target,), (threads,) = _TARGET.findall(text), _THREADS.findall(text)
    report = _run([ptxas, "-v", f"-arch={target}", str(ptx), "-o", str(machine_code)]).stderr
    disassembly = _run([nvdisasm, "-c", str(machine_code)]).stdout
    programs = math.prod(call.params["grid_mapping"].grid)
    a_warp = executed(disassembly, loop_trips(call.params["jaxpr"]))
    return {
        "kernel": call.params["name"],
        "programs": programs,
        "registers": max(map(int, _REGISTERS.findall(report))),
        "spilled_bytes": sum(map(int, _SPILLED.findall(report))),
        "warp_instructions": a_warp * programs * int(threads) // _WARP,
        "bytes": sum(value.aval.size * value.aval.dtype.itemsize for value in (*call.invars, *call.outvars)),
    }


def assembler() -> str:
    """Returns the path of the assembler in the wheels that JAX's CUDA compiler needs.

    Raises:
        UserError: if they are not installed.
    """
    package = importlib.util.find_spec("nvidia")
    roots = (package and package.submodule_search_locations) or []
    found = [path for root in roots for path in Path(root).glob("*/bin/ptxas")]
    if not found:
        raise UserError('Expected the assembler of CUDA\'s wheels, got no ptxas in them. Run pip install "paca-jax[cuda13]".')
    return str(found[0])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True)


def seconds(row: Mapping[str, Any], gpu: Gpu, chip: Chip) -> tuple[float, float]:
    """Returns the times that the instructions and the bytes of a kernel take at least."""
    instructions_per_second = gpu.multiprocessors * _SCHEDULERS * gpu.clock * 1e9
    return row["warp_instructions"] / instructions_per_second, row["bytes"] / chip.bandwidth


def markdown(rows: list[dict[str, Any]], gpu: Gpu, chip: Chip) -> str:
    """Returns the rows as a table."""
    return table(
        ("operation", "maps", "kernel"),
        ("programs", "registers", "spilled bytes", "instructions, millions", "us for instructions", "us for bytes"),
        (
            (
                row["operation"],
                "x".join(map(str, row["maps"])),
                f"`{row['kernel']}`",
                f"{row['programs']:,}",
                f"{row['registers']}",
                f"{row['spilled_bytes']}",
                f"{row['warp_instructions'] / 1e6:.1f}",
                *(f"{1e6 * value:.0f}" for value in seconds(row, gpu, chip)),
            )
            for row in rows
        ),
    )


def main() -> None:
    """Prints the table and writes the JSON file."""
    parser = Parser(description=__doc__)
    add_stages(parser)
    parser.add_argument("--gpu", choices=list(GPUS), default="h100", help="by default h100")
    parser.add_argument("--nvdisasm", default="nvdisasm", metavar="PROGRAM", help="the disassembler, by default nvdisasm")
    add_json(parser)
    args = parser.parse_args()
    if shutil.which(args.nvdisasm) is None:
        raise UserError(f"Expected NVIDIA's disassembler, got no program {args.nvdisasm!r}. Give --nvdisasm its path.")
    with tempfile.TemporaryDirectory() as folder:
        flags = (os.environ.get("XLA_FLAGS", ""), f"--xla_dump_to={folder}", "--xla_dump_emitter_re=ptx")
        os.environ["XLA_FLAGS"] = " ".join(flags)
        device, chip = compile_only_chip(f"{args.gpu}:1")
        ptxas = assembler()
        rows = [
            row
            for case in stage_cases(args.model, args.batch)
            if not case.operation.startswith("attention")
            for row in measure(case, args.dtype, device, ptxas, args.nvdisasm, Path(folder))
        ]
    gpu = GPUS[args.gpu]
    publish(markdown(rows, gpu, chip), rows, args.json, f"estimate for {args.gpu}")


if __name__ == "__main__":
    with command_line():
        main()
