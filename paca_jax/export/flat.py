"""A function without the calls inside it, for converters that know only the operations of `jax.lax`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal
from jaxtyping import PyTree

# Primitives that call a program: the parameter that holds it.
_CALLS = {
    "pjit": "jaxpr",
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def flattened(function: Callable[..., PyTree], inputs: Sequence[jax.ShapeDtypeStruct]) -> Callable[..., PyTree]:
    """Returns the same function of arrays, traced already: tracing it gives a program in which every variable is set once.

    Args:
        function: the function.
        inputs: the shapes and types of its arguments.
    """
    program, outputs = jax.make_jaxpr(function, return_shape=True)(*inputs)
    structure = jax.tree.structure(outputs)
    return lambda *arguments: jax.tree.unflatten(structure, _evaluate(program.jaxpr, program.consts, arguments))


def _evaluate(program: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Binds the operations of a program one by one, those of the programs that it calls among them."""
    values = dict(zip([*program.constvars, *program.invars], [*constants, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in program.eqns:
        operands = [read(atom) for atom in equation.invars]
        primitive = equation.primitive
        if primitive.name in _CALLS:
            called = equation.params[_CALLS[primitive.name]]
            inner, own = (called.jaxpr, called.consts) if isinstance(called, ClosedJaxpr) else (called, ())
            results = _evaluate(inner, own, operands)
        else:
            results = primitive.bind(*operands, **equation.params)
            results = results if primitive.multiple_results else [results]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in program.outvars]
