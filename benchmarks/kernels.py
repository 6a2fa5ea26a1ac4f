"""The cycles of Pallas kernels on a TPU, from their schedules, since the compiler has no estimate for them.

    python -m benchmarks.kernels --model NAME ... --batch N ... --image-size N ... --dtype bfloat16 --topology v5e:1x1

prints the kernels of the models' programs and their cycles as one line of JSON. `benchmarks.tpu_estimate` calls it with its own
options; it is a separate program because libtpu reads its options at start-up.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.extend.core import Jaxpr, JaxprEqn

from benchmarks.programs import add_cases, cases, programs
from benchmarks.schedules import cycles
from paca_jax.command_line import Parser, command_line
from paca_jax.planning.flops import equations
from paca_jax.planning.hlo import parse
from paca_jax.planning.topology import Chip, compile_only_devices, parse_topology, prepare_environment

Key = tuple[str, tuple[tuple[int, ...], ...]]
CUSTOM_CALL = '"tpu_custom_call"'


def kernel_cycles(args: argparse.Namespace) -> dict[Key, int]:
    """Returns the cycles of each kernel, by name and operand shapes, computed in a separate process."""
    options = {"model": args.model, "batch": args.batch, "image-size": args.image_size or []}
    lists = [part for name, values in options.items() if values for part in (f"--{name}", *map(str, values))]
    command = [sys.executable, "-m", "benchmarks.kernels", *lists, "--dtype", args.dtype, "--topology", args.topology]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    rows = json.loads(done.stdout.splitlines()[-1])
    return {(row["name"], tuple(map(tuple, row["operands"]))): row["cycles"] for row in rows}


def kernels(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Yields the calls of Pallas kernels in a traced program."""
    return (equation for equation in equations(jaxpr) if equation.primitive.name == "pallas_call")


def _key(equation: JaxprEqn) -> Key:
    return equation.params["name"], tuple(variable.aval.shape for variable in equation.invars)


def compiled_cycles(equation: JaxprEqn, device: jax.Device, folder: Path) -> int:
    """Compiles a single kernel and returns its cycles, from the schedule that libtpu writes.

    Args:
        equation: the call of the kernel.
        device: a compile-only device.
        folder: the folder that libtpu writes to; all of its files are deleted.

    Raises:
        ValueError: if the schedule does not contain the number of iterations of a loop.
    """
    for path in folder.iterdir():
        path.unlink()
    place = jax.sharding.SingleDeviceSharding(device)
    operands = [jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype, sharding=place) for variable in equation.invars]
    compiled = jax.jit(lambda *x: equation.primitive.bind(*x, **equation.params)).lower(*operands).compile()
    running = parse(compiled.as_text() or "").running()
    (name,) = (instruction.name for instruction, _, _ in running if CUSTOM_CALL in instruction.attributes)
    written = folder.glob(f"*-{name}-*-packed-bundles-post-ra.txt")
    (schedule,) = (path for path in written if "schedule-analysis" not in path.name)
    return cycles(schedule.read_text(), math.prod(equation.params["grid_mapping"].grid))


def add_topology(parser: argparse.ArgumentParser, *, batch: int = 128) -> None:
    """Adds the options for models and a chip, with this batch size by default."""
    add_cases(parser, model="pacavit_small_p2cconv_100_0", batch=batch, dtype="bfloat16")
    parser.add_argument("--topology", default="v5e:1x1", help="one chip, by default v5e:1x1")


def compile_only_chip(topology: str) -> tuple[jax.Device, Chip]:
    """Returns a compile-only device of a topology and its specification; the compilation cache is off from then on."""
    prepare_environment()
    jax.config.update("jax_enable_compilation_cache", False)
    found = parse_topology(topology)
    return compile_only_devices(found)[0], found.chip


def main() -> None:
    """Prints the kernels and their cycles as one line of JSON."""
    parser = Parser(description=__doc__)
    add_topology(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIBTPU_INIT_ARGS"] = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
        device, _ = compile_only_chip(args.topology)
        found = {}
        for case in cases(args):
            for program in programs(case).values():
                traced = program.trace(device)
                found.update({_key(equation): equation for equation in kernels(traced.jaxpr.jaxpr)})
        rows = [
            {"name": name, "operands": operands, "cycles": compiled_cycles(equation, device, Path(folder))}
            for (name, operands), equation in found.items()
        ]
    print(json.dumps(rows))


if __name__ == "__main__":
    with command_line():
        main()
