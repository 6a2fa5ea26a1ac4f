"""How the kernels for a GPU are launched, by Triton, and how they compute."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental.pallas import triton
from jaxtyping import Array

from paca_jax.ops.nn.gelu import PLAIN, Arithmetic

_WARPS = 4
THREADS = 32 * _WARPS  # of a program
ELEMENTS = 16 * THREADS  # that a program treats at once: 16 for each of its threads
PARAMS = triton.CompilerParams(num_warps=_WARPS, num_stages=1)


def arithmetic(interpret: bool) -> Arithmetic:
    """Returns how a kernel computes with float32: with one instruction, which Triton does not make of JAX's operations.

    Args:
        interpret: whether the kernel is computed by JAX operations, on any device.
    """
    return PLAIN if interpret else Arithmetic(_multiply_add, _exp2)


def _multiply_add(x: Array | float, y: Array | float, z: Array | float) -> Array:
    return _instruction("fma.rn.f32 $0, $1, $2, $3;", (x, y, z))


def _exp2(x: Array) -> Array:
    return _instruction("ex2.approx.ftz.f32 $0, $1;", (x,))


def _instruction(text: str, operands: Sequence[Array | float]) -> Array:
    arrays = jnp.broadcast_arrays(*(jnp.asarray(operand, jnp.float32) for operand in operands))
    (found,) = triton.elementwise_inline_asm(
        text,
        args=arrays,
        constraints=",".join(["=f", *"f" * len(arrays)]),
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(arrays[0].shape, jnp.float32)],
    )
    return found
