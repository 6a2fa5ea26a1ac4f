"""The mesh of devices, and where each array lives on it."""

from paca_jax.sharding.activations import constrain
from paca_jax.sharding.mesh import BATCH_AXES, MESH_AXES, batch_sharding, batch_shards, make_mesh
from paca_jax.sharding.parameters import PARAMETER_AXES, logical_axes, parameter_shardings, parameter_spec

__all__ = [
    "BATCH_AXES",
    "MESH_AXES",
    "PARAMETER_AXES",
    "batch_sharding",
    "batch_shards",
    "constrain",
    "logical_axes",
    "make_mesh",
    "parameter_shardings",
    "parameter_spec",
]
