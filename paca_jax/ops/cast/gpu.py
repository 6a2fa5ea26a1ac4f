"""Arrays converted to another type by one Triton kernel."""

from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float, PyTree

from paca_jax.ops import gpu
from paca_jax.sharding import on_each_device

_ELEMENTS = 2048  # of each array that a program treats: 16 for each of its threads
_WARPS = 4

Weights = TypeVar("Weights", bound=PyTree[Float[Array, "..."]])


def refusal(weights: Weights) -> str | None:
    """Returns why the kernel does not take these arrays, as a clause, or None if it does."""
    if not all(weight.dtype == jnp.float32 for weight in jax.tree.leaves(weights)):
        return "a parameter is not float32"
    return gpu.refusal()


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def cast_together(weights: Weights, dtype: np.dtype, interpret: bool) -> Weights:
    """Returns the arrays in a type.

    Args:
        weights: float32 arrays.
        dtype: the type.
        interpret: whether the kernel is computed by JAX operations, on any device.
    """
    # Only the values are computed device by device: their derivative is the compiler's to sum over devices, once.
    return on_each_device(partial(_call, dtype=dtype, interpret=interpret), weights)


def _call(weights: Weights, dtype: np.dtype, interpret: bool) -> Weights:
    leaves, structure = jax.tree.flatten(weights)
    found = pl.pallas_call(
        _body,
        grid=(pl.cdiv(max(leaf.size for leaf in leaves), _ELEMENTS),),
        out_shape=[jax.ShapeDtypeStruct((leaf.size,), dtype) for leaf in leaves],
        compiler_params=plgpu.CompilerParams(num_warps=_WARPS, num_stages=1),
        name="cast",
        interpret=interpret,
    )(*(leaf.reshape(-1) for leaf in leaves))
    return jax.tree.unflatten(structure, [flat.reshape(leaf.shape) for flat, leaf in zip(found, leaves, strict=True)])


@cast_together.defjvp
def _cast_together_jvp(
    dtype: np.dtype, interpret: bool, primals: tuple[Weights], tangents: tuple[Weights]
) -> tuple[Weights, Weights]:
    slopes = jax.tree.map(lambda tangent: tangent.astype(dtype), tangents[0])
    return cast_together(primals[0], dtype, interpret), slopes


def _body(*refs: Any) -> None:
    """Converts one part of every array; those that have no more elements are left alone."""
    places = pl.program_id(0) * _ELEMENTS + jnp.arange(_ELEMENTS)
    for source, result in zip(refs[: len(refs) // 2], refs[len(refs) // 2 :], strict=True):
        inside = places < source.size
        plgpu.store(result.at[places], plgpu.load(source.at[places], mask=inside, other=0).astype(result.dtype), mask=inside)
