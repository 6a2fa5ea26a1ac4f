"""What Pallas kernels take on a TPU: the compiler gives them no cycles, but their schedules can be read.

    python -m benchmarks.kernels --model NAME ... --batch N ... --image-size N ... --dtype bfloat16 --topology v5e:1x1

prints each kernel of the models' programs and its cycles as one line of JSON. `benchmarks.tpu_estimate` calls it with its own
options; it is a program of its own because libtpu takes its options when it starts.
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
from paca_jax.errors import told_on_the_command_line
from paca_jax.planning.flops import inner_jaxprs
from paca_jax.planning.hlo import parse
from paca_jax.planning.topology import compile_only_devices, parse_topology, prepare_environment

Key = tuple[str, tuple[tuple[int, ...], ...]]
CUSTOM_CALL = '"tpu_custom_call"'


def kernel_cycles(asked: argparse.Namespace) -> dict[Key, int]:
    """Returns the cycles of each kernel by its name and its operands' shapes, from a process of its own."""
    options = {"model": asked.model, "batch": asked.batch, "image-size": asked.image_size or []}
    lists = [part for name, values in options.items() if values for part in (f"--{name}", *map(str, values))]
    command = [sys.executable, "-m", "benchmarks.kernels", *lists, "--dtype", asked.dtype, "--topology", asked.topology]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    rows = json.loads(done.stdout.splitlines()[-1])
    return {(row["name"], tuple(map(tuple, row["operands"]))): row["cycles"] for row in rows}


def kernels(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Yields the calls of Pallas kernels in a traced program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            yield equation
        else:
            for inner in inner_jaxprs(equation.params):
                yield from kernels(inner)


def _key(equation: JaxprEqn) -> Key:
    return equation.params["name"], tuple(variable.aval.shape for variable in equation.invars)


def compiled_cycles(equation: JaxprEqn, device: jax.Device, folder: Path) -> int:
    """Compiles a kernel alone and reads its cycles from the schedule that libtpu writes.

    Args:
        equation: the call of a kernel.
        device: a chip that need not be there.
        folder: where libtpu was told to write; nothing else is in it.

    Raises:
        ValueError: if the schedule does not tell how often a loop runs.
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
    """Adds what tells models and a chip, with this batch by default."""
    add_cases(parser, model="pacavit_small_p2cconv_100_0", batch=batch, dtype="bfloat16")
    parser.add_argument("--topology", default="v5e:1x1", help="one chip, by default v5e:1x1")


def main() -> None:
    """Prints the kernels of models as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_topology(parser)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIBTPU_INIT_ARGS"] = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
        prepare_environment()
        jax.config.update("jax_enable_compilation_cache", False)
        device = compile_only_devices(parse_topology(asked.topology))[0]
        found = {}
        for case in cases(asked):
            for program in programs(case).values():
                traced = program.trace(device)
                found.update({_key(equation): equation for equation in kernels(traced.jaxpr.jaxpr)})
        rows = [
            {"name": name, "operands": operands, "cycles": compiled_cycles(equation, device, Path(folder))}
            for (name, operands), equation in found.items()
        ]
    print(json.dumps(rows))


if __name__ == "__main__":
    with told_on_the_command_line():
        main()
