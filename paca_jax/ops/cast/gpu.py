"""Arrays converted to another type by one Triton kernel."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from paca_jax.ops import gpu
from paca_jax.ops.pallas.triton import ELEMENTS, PARAMS
from paca_jax.sharding import on_each_device


def refusal(weights: list[Float[Array, "..."]]) -> str | None:
    """Returns why the kernel does not take these arrays, as a clause, or None if it does."""
    return gpu.refusal() if all(weight.dtype == jnp.float32 for weight in weights) else "a parameter is not float32"


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def cast_together(weights: list[Float[Array, "..."]], dtype: np.dtype, interpret: bool) -> list[Float[Array, "..."]]:
    """Returns the arrays in a type.

    Args:
        weights: float32 arrays.
        dtype: the type.
        interpret: whether the kernel is computed by JAX operations, on any device.
    """
    # Only the values are computed device by device: their derivative is the compiler's to sum over devices, once.
    return on_each_device(partial(_call, dtype=dtype, interpret=interpret), weights)


@cast_together.defjvp
def _cast_together_jvp(
    dtype: np.dtype, interpret: bool, primals: tuple[list[Array]], tangents: tuple[list[Array]]
) -> tuple[list[Array], list[Array]]:
    return cast_together(*primals, dtype, interpret), [tangent.astype(dtype) for tangent in tangents[0]]


def _call(weights: list[Array], dtype: np.dtype, interpret: bool) -> list[Array]:
    found = pl.pallas_call(
        _body,
        grid=(pl.cdiv(max(weight.size for weight in weights), ELEMENTS),),
        out_shape=[jax.ShapeDtypeStruct((weight.size,), dtype) for weight in weights],
        compiler_params=PARAMS,
        name="cast",
        interpret=interpret,
    )(*(weight.reshape(-1) for weight in weights))
    return [flat.reshape(weight.shape) for flat, weight in zip(found, weights, strict=True)]


def _body(*refs: Any) -> None:
    """Converts one part of every array; those that have no more elements are left alone."""
    places = pl.program_id(0) * ELEMENTS + jnp.arange(ELEMENTS)
    for source, result in zip(refs[: len(refs) // 2], refs[len(refs) // 2 :], strict=True):
        inside = places < source.size
        plgpu.store(result.at[places], plgpu.load(source.at[places], mask=inside, other=0).astype(result.dtype), mask=inside)
