"""Constraints on activations, by the names of their axes."""

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from paca_jax.sharding.mesh import BATCH_AXES

_MESH_AXES_OF = {"batch": BATCH_AXES, "rows": ("model",), "heads": ("model",), "mlp": ("model",), None: ()}


def constrain(x: Float[Array, "..."], *axes: str | None) -> Float[Array, "..."]:
    """Asks the compiler to split `x` along named axes: "batch", "rows", "heads", "mlp" or None, one for each axis of `x`.

    Takes effect while a step is traced under `jax.set_mesh`; elsewhere, as in a notebook, `x` comes back as it is. An axis that
    the mesh does not divide stays whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    parts = []
    for size, axis in zip(x.shape, axes, strict=True):
        names = _MESH_AXES_OF[axis]
        shards = 1
        for name in names:
            shards *= mesh.shape[name]
        parts.append(names if names and size % shards == 0 else None)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*parts))


def constrain_patches(x: Float[Array, "B H W C"], split_rows: bool) -> Float[Array, "B H W C"]:
    """Asks the compiler to split a map of patches along the batch and, where `split_rows`, along its rows."""
    return constrain(x, "batch", "rows" if split_rows else None, None, None)
