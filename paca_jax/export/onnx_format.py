"""ONNX, by jax2onnx."""

import importlib
import logging
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from paca_jax.errors import UserError, check_installed
from paca_jax.export.certification.certificate import Certificate
from paca_jax.export.flat import flattened
from paca_jax.export.folder import Format, write_export
from paca_jax.export.onnx_selections import replace_boolean_selections
from paca_jax.export.program import Program

PROGRAM = "program.onnx"
OPSET = 18
_PACKAGES = ("jax2onnx", "onnx", "onnxruntime")


def onnx(
    model: Any,
    variables: PyTree,
    folder: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    weight_dtype: str = "float32",
) -> Certificate:
    """Writes a model in the ONNX format, which ONNX Runtime and others run.

    The folder gets `program.onnx`, and the other files of `stablehlo`, whose inputs and outputs these are, except that a
    detector's program takes one image.

    Args:
        model: a model of `create_model` or `load`, which computes in float32.
        variables: its variables.
        folder: the folder to write to, on this machine; new or empty.
        class_names: the names of the model's outputs, such as `paca_jax.class_names` returns.
        size: the height and width in pixels that a detector takes; None for a square that holds every picture.
        weight_dtype: how kernels are stored, see `stablehlo`.

    Returns:
        How far the program, run by ONNX Runtime without this library, is from the model on real pictures.

    Raises:
        UserError: if an argument is wrong, the packages of the extra `onnx` are not installed, the folder is not empty or
            cannot be written, or the program differs from the model. Nothing is left in the folder then.
    """
    if getattr(model, "dtype", jnp.float32) != jnp.float32:
        raise UserError(f"Expected a model that computes in float32, got one in {model.dtype}. Load it with dtype='float32'.")
    check_installed("ONNX", _PACKAGES, "pip install paca-jax[onnx], then pip install --no-deps jax2onnx")
    return write_export(model, variables, folder, class_names, size, weight_dtype, Format(PROGRAM, _convert, 1))


def _convert(program: Program) -> bytes:
    inputs = list(program.inputs.values())
    outputs = jax.eval_shape(program.function, *inputs)
    flat = flattened(program.function, inputs)
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)  # else it warns of each shape that has no type of its own
    to_onnx = importlib.import_module("jax2onnx").to_onnx  # no dependency that can be declared, see pyproject.toml
    converted = to_onnx(flat, inputs, opset=OPSET, input_names=list(program.inputs), output_names=list(outputs))
    replace_boolean_selections(converted.graph)
    return converted.SerializeToString()
