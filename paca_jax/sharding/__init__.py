"""The device mesh, and the sharding of each array over it."""

from paca_jax.sharding.activations import constrain, constrain_patches
from paca_jax.sharding.images import by_images, model_shards, on_each_device, target_platform
from paca_jax.sharding.mesh import BATCH_AXES, MESH_AXES, batch_sharding, batch_shards, host_rows, local_rows, make_mesh
from paca_jax.sharding.parameters import (
    PARAMETER_AXES,
    gather_parameters,
    logical_axes,
    parameter_path,
    parameter_shardings,
    parameter_spec,
    scatter_gradients,
)
from paca_jax.sharding.processes import gather_bytes, start_processes, stop_together

__all__ = [
    "BATCH_AXES",
    "MESH_AXES",
    "PARAMETER_AXES",
    "batch_sharding",
    "batch_shards",
    "by_images",
    "constrain",
    "constrain_patches",
    "gather_bytes",
    "gather_parameters",
    "host_rows",
    "local_rows",
    "logical_axes",
    "make_mesh",
    "model_shards",
    "on_each_device",
    "parameter_path",
    "parameter_shardings",
    "parameter_spec",
    "scatter_gradients",
    "start_processes",
    "stop_together",
    "target_platform",
]
