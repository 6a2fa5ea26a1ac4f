"""The limits of the kernels: the vector memory of a TPU core, and why arrays are refused."""

import math

import jax.numpy as jnp

SMALLEST_VMEM = 16 * 2**20  # bytes of vector memory on the smallest core, a v4's; steps over patches are cut for them
ROWS_VMEM_LIMIT = 64 * 2**20  # bytes that the compiler may give to a step over rows of maps, although a v4's must do with less


def type_refusal(dtype: jnp.dtype) -> str | None:
    """Returns why the kernels do not take arrays of this type, or None if they do."""
    return None if dtype in (jnp.bfloat16, jnp.float32) else f"the type is {dtype}, not float32 or bfloat16"


def memory_refusal(subject: str, needed: int, available: int) -> str | None:
    """Returns that a subject (in the plural) needs more vector memory than there is, in bytes, or None if it does not."""
    if needed <= available:
        return None
    mebibytes = math.ceil(10 * needed / 2**20) / 10
    return f"{subject} need {mebibytes:.1f} MiB of the chip's vector memory, and {available / 2**20:.1f} MiB are there"
