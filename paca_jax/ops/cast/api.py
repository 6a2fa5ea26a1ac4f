"""Parameters in the type of an operation."""

from typing import TypeVar

import jax
import jax.numpy as jnp
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
    leaves, structure = jax.tree.flatten(weights)
    if all(leaf.dtype == dtype for leaf in leaves):
        return weights

    def refusal() -> str | None:
        from paca_jax.ops.cast import gpu  # with Pallas, which takes long to import

        return "the mesh has a model axis" if model_shards() > 1 else gpu.refusal(leaves)

    if choose("cast", implementation, {"pallas_gpu": refusal}) == "pallas_gpu":
        from paca_jax.ops.cast import gpu

        return jax.tree.unflatten(structure, gpu.cast_together(leaves, jnp.dtype(dtype), bool(kernel_interpreter())))
    return jax.tree.unflatten(structure, [leaf.astype(dtype) for leaf in leaves])
