"""The comparison of an exported program, run without this library, with the model."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from paca_jax.errors import UserError, summary
from paca_jax.export.certification import isolated
from paca_jax.export.certification.comparison import Outputs, Rounding, in_same_order, largest_differences, rounding
from paca_jax.export.certification.pictures import PICTURES, Inputs, example_inputs
from paca_jax.export.program import Program, call_model
from paca_jax.models.model import check_finite
from paca_jax.version import __version__

# Of each output, as a part of its largest value if that is above one.
_TOLERANCE, _TOLERANCE_16_BIT = 1e-4, 2e-2


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The proof that an exported program does what its model does.

    Attributes:
        file: the name of the program's file.
        sha256: the checksum of that file.
        pictures: the photographs that both saw, as paths below `datasets/`.
        images: the shape of the images in each call.
        differences: {output: largest difference between the program and the model}, each divided by the output's largest
            value if that is above one.
        tolerance: the largest difference that is accepted.
        packages: the versions of what ran the program, in a process that could not import this library.
        weight_dtype: how the program stores kernels, "float32" or "int8". The model that it is compared with has the same
            kernels.
        rounding: what storing them so changes in the outputs; None for "float32".
        paca_jax: the version of this library.
    """

    file: str
    sha256: str
    pictures: tuple[str, ...]
    images: tuple[tuple[int, ...], ...]
    differences: dict[str, float]
    tolerance: float
    packages: dict[str, str]
    weight_dtype: str
    rounding: Rounding | None
    paca_jax: str = __version__

    @property
    def largest_difference(self) -> float:
        """The largest difference of any output."""
        return max(self.differences.values())

    def to_json(self) -> str:
        """Returns the content of `certificate.json`."""
        fields = {"largest_difference": self.largest_difference, **dataclasses.asdict(self)}
        return json.dumps(fields, indent=2) + "\n"


def certify(program: Program, file: Path, model: object, variables: PyTree) -> Certificate:
    """Runs an exported program and compares it with its model, on a CPU.

    Args:
        program: the program.
        file: the file of its exported form; files for the comparison are put beside it.
        model: the model as the user has it.
        variables: its variables, before the program rounded any.

    Raises:
        UserError: if the outputs of the model are not finite, or the two differ by more than the tolerance.
    """
    calls = example_inputs(program)
    packages, found = _run_isolated(file, calls)
    wide = program.model.dtype == jnp.float32
    # Implementations differ in the last bits, of which a 16-bit type has few, and which decide what boxes of a detector remain.
    compared = model if wide and program.canvas is None else program.model
    expected = _run_model(compared, program.weights, calls)
    check_finite(all(np.isfinite(array).all() for outputs in expected for array in outputs.values()))
    tolerance = _TOLERANCE if wide else _TOLERANCE_16_BIT
    found = [in_same_order(*outputs, tolerance) for outputs in zip(expected, found, strict=True)]
    differences = largest_differences(expected, found)
    off = {name: difference for name, difference in differences.items() if not difference <= tolerance}
    if off:
        raise UserError(
            f"Expected a program that differs from its model by at most {tolerance:g}, got {off} on {', '.join(PICTURES)}. "
            "Try the weights with `paca predict`; if they are well, report this."
        )
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    shapes = tuple(call["images"].shape for call in calls)
    changes = None if program.weight_dtype == "float32" else rounding(_run_model(compared, variables, calls), expected)
    return Certificate(file.name, checksum, PICTURES, shapes, differences, tolerance, packages, program.weight_dtype, changes)


def _run_isolated(file: Path, calls: list[Inputs]) -> tuple[dict[str, str], list[Outputs]]:
    """Returns the versions of the packages that ran the program, and its outputs for each call."""
    inputs, outputs = file.with_name("inputs.npz"), file.with_name("outputs.npz")
    arrays = {f"{index}/{name}": array for index, call in enumerate(calls) for name, array in call.items()}
    np.savez(inputs, **arrays)  # type: ignore[arg-type]
    command = [sys.executable, "-I", isolated.__file__, *map(str, (file, inputs, outputs))]
    done = subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The exported program does not run without this library:\n{done.stderr}")
    with np.load(outputs) as found:
        results: list[Outputs] = [{} for _ in calls]
        for key in found.files:
            index, _, name = key.partition("/")
            results[int(index)][name] = found[key]
    return json.loads(done.stdout), results


def _run_model(model: object, variables: PyTree, calls: list[Inputs]) -> list[Outputs]:
    try:
        (cpu, *_) = jax.local_devices(backend="cpu")
    except RuntimeError as error:
        raise UserError(
            f"Expected a CPU in JAX to compare the program on, got {summary(error)}. Add cpu to JAX_PLATFORMS."
        ) from error
    weights = jax.device_get(variables)
    with jax.default_device(cpu):
        run = jax.jit(lambda weights, inputs: call_model(model, weights, **inputs))
        return [jax.device_get(run(weights, inputs)) for inputs in calls]
