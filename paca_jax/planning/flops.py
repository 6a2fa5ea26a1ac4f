"""Counts the FLOPs of a traced program's matrix products and convolutions."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def matrix_flops(jaxpr: Jaxpr, padding: bool = False) -> int:
    """Returns the floating-point operations of a program's matrix products and convolutions, two for each multiply-add.

    The count covers the whole program over all devices, before compilation: a scan counts each of its iterations, a conditional
    its most expensive branch, a kernel its own cost estimate, a loop of unknown length one iteration.

    Args:
        jaxpr: the program.
        padding: whether positions of a convolution's window count that fall on padding or into a gap of its dilation.
    """
    return sum(_equation(equation, padding) for equation in jaxpr.eqns)


def _equation(equation: JaxprEqn, padding: bool) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        return _dot(equation)
    if name == "conv_general_dilated":
        return _convolution(equation, padding)
    if name == "pallas_call" and equation.params["cost_estimate"]:
        return equation.params["cost_estimate"].flops
    inside = [matrix_flops(jaxpr, padding) for jaxpr in inner_jaxprs(equation.params)]
    if name == "cond":
        return max(inside)
    if name == "shard_map":
        return sum(inside) * equation.params["mesh"].size  # each device runs it
    return sum(inside) * (equation.params["length"] if name == "scan" else 1)


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Yields the equations of a program, including nested ones; a Pallas kernel is one equation."""
    for equation in jaxpr.eqns:
        yield equation
        if equation.primitive.name != "pallas_call":
            for inner in inner_jaxprs(equation.params):
                yield from equations(inner)


def inner_jaxprs(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """Yields the jaxprs inside an equation, given its parameters."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _dot(equation: JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = _shape(equation.invars[0])
    return 2 * math.prod(_shape(equation.outvars[0])) * math.prod(shape[axis] for axis in contracted)


def _convolution(equation: JaxprEqn, padding: bool) -> int:
    params = equation.params
    lhs, rhs = (_shape(variable) for variable in equation.invars)
    out = _shape(equation.outvars[0])
    lhs_axes, rhs_axes, out_axes = params["dimension_numbers"]
    pairs = 1
    for axis in range(len(params["window_strides"])):
        window, positions = rhs[rhs_axes[axis + 2]], out[out_axes[axis + 2]]
        if padding:
            pairs *= window * positions
        else:
            pairs *= _valid_pairs(
                lhs[lhs_axes[axis + 2]],
                window,
                positions,
                params["window_strides"][axis],
                params["padding"][axis][0],
                params["lhs_dilation"][axis],
                params["rhs_dilation"][axis],
            )
    return 2 * out[out_axes[0]] * out[out_axes[1]] * rhs[rhs_axes[1]] * pairs


def _valid_pairs(size: int, window: int, out: int, stride: int, padding: int, dilation: int, window_dilation: int) -> int:
    """Returns how many pairs of an output and a window position fall on an element, along one axis of `size` elements."""
    position = np.arange(out)[:, None] * stride + np.arange(window) * window_dilation - padding
    return int(np.sum((position >= 0) & (position <= (size - 1) * dilation) & (position % dilation == 0)))
