"""The device mesh, with the axes `data`, `fsdp` and `model`.

The batch is split over `data` and `fsdp`; large parameters and their optimizer state are split over `fsdp` and, along heads and
MLP channels, over `model`.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from paca_jax.errors import UserError

MESH_AXES = ("data", "fsdp", "model")
BATCH_AXES = ("data", "fsdp")


def make_mesh(data: int = -1, fsdp: int = 1, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh over `devices`; by default, over all devices of all processes.

    Args:
        data: the size of the axis that only the batch is split over.
        fsdp: the size of the axis that the batch and the parameters are split over.
        model: the size of the axis that attention heads and MLP channels are split over.
        devices: the devices of the mesh, each used once.

    One size may be -1, which stands for the remaining devices.

    Raises:
        UserError: if the product of the sizes is not the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = _resolve((data, fsdp, model), len(devices))
    laid_out = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(laid_out, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _resolve(sizes: tuple[int, ...], device_count: int) -> tuple[int, ...]:
    given = ", ".join(f"mesh.{axis}={size}" for axis, size in zip(MESH_AXES, sizes, strict=True))
    if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
        raise UserError(
            f"Expected mesh sizes that are positive or, for one of them, -1 (the remaining devices), got {given}. Correct them."
        )
    fixed = math.prod(size for size in sizes if size != -1)
    resolved = tuple(device_count // fixed if size == -1 else size for size in sizes)
    if math.prod(resolved) != device_count:
        advice = "Choose smaller sizes" if fixed > device_count else "Choose other sizes"
        raise UserError(
            f"Expected mesh sizes with a product of {device_count} (the devices), got {given}. {advice}, or set one to -1."
        )
    return resolved


def batch_shards(mesh: Mesh | AbstractMesh) -> int:
    """Returns the number of parts that a mesh splits the batch into; 1 for an empty mesh."""
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its first axis split over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def host_rows(array: jax.Array) -> np.ndarray:
    """Returns the rows of a batch that this process's devices hold, in the order of `local_rows`."""
    shards = {shard.index[0].indices(array.shape[0])[0]: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[first]) for first in sorted(shards)])


def local_rows(mesh: Mesh, batch_size: int) -> list[int]:
    """Returns the indices of the rows of a batch that this process's devices hold, ascending.

    On a pod they need not be contiguous, and if a `model` axis spans processes, several processes hold the same rows.
    """
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    return sorted({row for index in places.values() if index for row in range(batch_size)[index[0]]})
