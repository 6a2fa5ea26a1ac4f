"""Counts the multiply-adds of a function, exactly, from the program that JAX traces."""

from collections.abc import Callable
from typing import Any

import jax

from paca_jax import ops
from paca_jax.planning.flops import equations, inner_jaxprs, matrix_flops


def multiply_adds(function: Callable[..., Any], *arguments: Any) -> int:
    """Returns the multiply-adds (the papers' "FLOPs") of the matrix products and convolutions of `function(*arguments)`.

    All of them count, however deeply they are nested; element-wise work (norms, softmax, GELU, additions) does not. Positions
    of a convolution's window on padding count as well. A conditional counts its most expensive branch, a kernel its own cost
    estimate. Operations are those of the reference formulas (`implementation="xla"`). Nothing is computed.

    Args:
        function: the function to count; it is traced, not run.
        *arguments: pytrees of arrays or `jax.ShapeDtypeStruct`.

    Raises:
        NotImplementedError: if a loop of unknown length contains such an operation.
    """
    with ops.use_implementation("xla"):
        jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    loops = (equation for equation in equations(jaxpr) if equation.primitive.name == "while")
    if any(matrix_flops(inner) for loop in loops for inner in inner_jaxprs(loop.params)):
        raise NotImplementedError("Expected loops with a known number of rounds, got a while loop. Count its body instead.")
    return matrix_flops(jaxpr, padding=True) // 2
