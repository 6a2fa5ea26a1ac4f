"""Parameters in the type of an operation."""

from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from paca_jax.ops.implementation import Implementation, choose, kernel_interpreter
from paca_jax.sharding import model_shards

Weights = TypeVar("Weights", bound=PyTree[Float[Array, "..."]])


def cast_weights(weights: Weights, dtype: DTypeLike, implementation: Implementation | None = None) -> Weights:
    """Returns arrays in a type.

    XLA for GPUs launches a kernel for each. `"pallas_gpu"` is one for all of them; it takes a mesh that does not split
    weights.
    """
    if all(weight.dtype == dtype for weight in jax.tree.leaves(weights)):
        return weights

    def refusal() -> str | None:
        from paca_jax.ops.cast import gpu  # with Pallas, which takes long to import

        return "the mesh has a model axis" if model_shards() > 1 else gpu.refusal(weights)

    if choose("cast", implementation, {"pallas_gpu": refusal}) == "pallas_gpu":
        return _with_kernel(weights, jnp.dtype(dtype), bool(kernel_interpreter()))
    return jax.tree.map(lambda weight: weight.astype(dtype), weights)


@partial(jax.jit, static_argnames=("dtype", "interpret"), inline=True)
def _with_kernel(weights: Weights, dtype: np.dtype, interpret: bool) -> Weights:
    from paca_jax.ops.cast import gpu

    return gpu.cast_together(weights, dtype, interpret)
