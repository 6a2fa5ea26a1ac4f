"""A mesh of devices with the axes `data`, `fsdp` and `model`.

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
    """Returns a mesh over all `devices` (default: every device of every process).

    Args:
        data: devices along which only the batch is split.
        fsdp: devices along which the batch and the parameters are split.
        model: devices along which attention heads and MLP channels are split.
        devices: the devices to lay out, each used once.

    One size may be -1: it takes the devices that the others leave.

    Raises:
        UserError: if the product of the sizes is not the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = _resolve((data, fsdp, model), len(devices))
    laid_out = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(laid_out, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _resolve(sizes: tuple[int, ...], device_count: int) -> tuple[int, ...]:
    asked = ", ".join(f"mesh.{axis}={size}" for axis, size in zip(MESH_AXES, sizes, strict=True))
    if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
        raise UserError(f"Mesh sizes are positive, and one of them may be -1 (the remaining devices), but got {asked}.")
    fixed = math.prod(size for size in sizes if size != -1)
    resolved = tuple(device_count // fixed if size == -1 else size for size in sizes)
    if math.prod(resolved) != device_count:
        advice = "choose smaller sizes" if fixed > device_count else "choose sizes whose product is the number of devices"
        raise UserError(f"The mesh {asked} does not fit the {device_count} devices at hand: {advice}, or set one size to -1.")
    return resolved


def batch_shards(mesh: Mesh | AbstractMesh) -> int:
    """Returns the number of parts into which the batch axis is split: one by a mesh without axes."""
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its first axis split over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def host_rows(array: jax.Array) -> np.ndarray:
    """Returns the rows of a batch that this process's devices hold, ascending: those of `local_rows`."""
    shards = {shard.index[0].indices(array.shape[0])[0]: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[first]) for first in sorted(shards)])


def local_rows(mesh: Mesh, batch_size: int) -> list[int]:
    """Returns the rows of a batch that this process's devices hold, ascending.

    On a pod they need not be contiguous, and where a `model` axis spans processes several of them hold the same rows.
    """
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    return sorted({row for index in places.values() if index for row in range(batch_size)[index[0]]})
