"""StableHLO, by `jax.export`."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from jaxtyping import PyTree

from paca_jax.export.certification.certificate import Certificate
from paca_jax.export.folder import Format, write_export
from paca_jax.export.program import Program

PROGRAM = "program.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo(
    model: Any,
    variables: PyTree,
    folder: str | os.PathLike[str],
    class_names: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    weight_dtype: str = "float32",
) -> Certificate:
    """Writes a model as one StableHLO program for CPUs, GPUs and TPUs, which JAX runs without this library.

    The folder gets `program.stablehlo`, which holds the weights; `export.json`, the shapes, the preprocessing and the names of
    the classes; and `certificate.json`. The program takes `images` (B, H, W, C) uint8 and normalizes them, for any B, H and W.
    It returns {"logits": (B, K)}, of a segmentor (B, H/4, W/4, K), or without classes {"features": (B, C)}.

    A detector's program takes images of one height and width, and `sizes` (B, 2) int32, the height and width of each image
    without its padding. It returns the outputs of the model, after non-maximum suppression.

    Args:
        model: a model of `create_model` or `load`.
        variables: its variables.
        folder: the folder to write to, on this machine; new or empty.
        class_names: the names of the model's outputs, such as `paca_jax.class_names` returns.
        size: the height and width in pixels that a detector takes; None for a square that holds every picture.
        weight_dtype: how kernels are stored: "int8" rounds those with at least 64 inputs for each output channel to integers,
            with a scale for each channel, in a file of about a quarter of the size.

    Returns:
        How far the program, run without this library, is from the model on real pictures.

    Raises:
        UserError: if an argument is wrong, the folder is not empty or cannot be written, or the program differs from the
            model. Nothing is left in the folder then.
    """
    return write_export(model, variables, folder, class_names, size, weight_dtype, Format(PROGRAM, _serialize, None))


def _serialize(program: Program) -> bytes:
    with _file_names_only():
        exported = jax.export.export(jax.jit(program.function), platforms=PLATFORMS)(*program.inputs.values())
    return bytes(exported.serialize())


@contextmanager
def _file_names_only() -> Iterator[None]:
    """A context in which programs name the source files of their operations without the folders of this machine."""
    option = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, option)
    jax.config.update(option, ".*/")
    try:
        yield
    finally:
        jax.config.update(option, before)
