"""Counts multiply-adds, exactly, from the program that JAX traces."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from paca_jax.planning.flops import inner_jaxprs


def multiply_adds(function: Callable[..., Any], *arguments: Any) -> int:
    """Returns the multiply-adds (the papers' "FLOPs") of the matrix products and convolutions of `function(*arguments)`.

    Products of matrices and convolutions are counted, wherever they are nested; element-wise work (norms, softmax, GELU,
    additions) is not. Where the program holds alternatives, the one with the most counted operations counts: of a depthwise
    convolution (a grouped convolution on one platform, a sum of shifted products on another) the grouped convolution, K * K
    for each of its outputs. A kernel counts what its cost estimate tells. Nothing is computed.

    Args:
        function: what to count; it is traced, not run.
        *arguments: pytrees of arrays or `jax.ShapeDtypeStruct`.

    Raises:
        NotImplementedError: if the program holds a loop whose number of rounds is not in it.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: core.JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    inputs: list[Any] = [value.aval for value in equation.invars]
    outputs: list[Any] = [value.aval for value in equation.outvars]
    if name == "dot_general":
        (contracting, _), _ = params["dimension_numbers"]
        return outputs[0].size * math.prod(inputs[0].shape[axis] for axis in contracting)
    if name == "conv_general_dilated":
        kernel = inputs[1]
        return outputs[0].size * kernel.size // kernel.shape[params["dimension_numbers"].rhs_spec[0]]
    if name == "pallas_call" and params["cost_estimate"]:
        return params["cost_estimate"].flops // 2
    inner = [_count(jaxpr) for jaxpr in inner_jaxprs(params)]
    if name == "while" and any(inner):
        raise NotImplementedError("A while loop's number of rounds is not known before it runs; count its body alone.")
    if name == "scan":
        return params["length"] * sum(inner)
    return max(inner) if name == "cond" else sum(inner)
