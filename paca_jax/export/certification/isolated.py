"""Runs an exported program without this library: `python -I isolated.py PROGRAM INPUTS OUTPUTS`.

INPUTS is an .npz file of the arguments CALL/NAME of a few calls; OUTPUTS is written like it. What is imported here is all that
a program needs: NumPy, and JAX or ONNX Runtime.
"""

import json
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[dict[str, np.ndarray]], dict[str, Any]]


def load_stablehlo(file: Path) -> Call:
    """Returns a function that calls a program that `jax.export` serialized."""
    import jax

    program = jax.export.deserialize(bytearray(file.read_bytes()))
    return lambda inputs: jax.jit(program.call)(*inputs.values())


def load_onnx(file: Path) -> Call:
    """Returns a function that calls an ONNX model."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def main(program: str, inputs: str, outputs: str) -> None:
    """Runs all calls and prints the versions of the packages that ran them, as JSON."""
    load, package = (load_onnx, "onnxruntime") if program.endswith(".onnx") else (load_stablehlo, "jax")
    call = load(Path(program))
    calls: dict[str, dict[str, np.ndarray]] = {}
    with np.load(inputs) as arrays:
        for key in arrays.files:
            index, _, name = key.partition("/")
            calls.setdefault(index, {})[name] = arrays[key]
    results = {}
    for index, arguments in calls.items():
        for name, array in call(arguments).items():
            results[f"{index}/{name}"] = np.asarray(array)
    np.savez(outputs, **results)  # type: ignore[arg-type]
    print(json.dumps({"python": platform.python_version(), **{name: version(name) for name in ("numpy", package)}}))


if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(("paca_jax", "flax")))  # type: ignore[arg-type]  # None: importing them fails
    main(*sys.argv[1:])
