"""Sharding constraints on activations, by axis names."""

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from paca_jax.sharding.mesh import BATCH_AXES

_MESH_AXES_OF = {"batch": BATCH_AXES, "rows": ("model",), "heads": ("model",), "mlp": ("model",), None: ()}


def constrain(x: Float[Array, "..."], *axes: str | None) -> Float[Array, "..."]:
    """Constrains the sharding of `x` by a name for each of its axes: "batch", "rows", "heads", "mlp" or None.

    Takes effect if traced under `jax.set_mesh`; otherwise, as in a notebook, `x` is returned unchanged. An axis whose size the
    mesh axis does not divide is not split.
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
    """Constrains a map of patches to be split along the batch and, if `split_rows`, along its rows."""
    return constrain(x, "batch", "rows" if split_rows else None, None, None)
